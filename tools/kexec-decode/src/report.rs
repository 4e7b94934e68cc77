//! What there is to say about a dump, in sections, for a terminal or for a file.

use core::fmt;

use anstyle::{AnsiColor, Style};

/// An explained dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Where the dump lies in the log, and how much of it there is.
    pub heading: String,
    /// In the order in which a person wants to know.
    pub sections: Vec<Section>,
}

/// Lines under a title.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its title.
    pub title: String,
    /// Its lines, without indentation.
    pub lines: Vec<Line>,
}

/// A line of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Without a line end.
    pub text: String,
    /// How much a reader should care.
    pub weight: Weight,
}

/// How much a reader should care for a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// This is it.
    Main,
    /// Ordinary.
    Normal,
    /// For completeness.
    Quiet,
}

impl Report {
    /// The section with the given title.
    #[must_use]
    pub fn section(&self, title: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.title == title)
    }

    /// The report with colours for a terminal.
    #[must_use]
    pub const fn styled(&self) -> Styled<'_> {
        Styled(self)
    }

    pub(crate) fn push(&mut self, section: Section) {
        if !section.lines.is_empty() {
            self.sections.push(section);
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, styles: &Styles) -> fmt::Result {
        writeln!(f, "{}{}{:#}", styles.heading, self.heading, styles.heading)?;
        for section in &self.sections {
            writeln!(f)?;
            writeln!(f, "{}{}{:#}", styles.title, section.title, styles.title)?;
            for line in &section.lines {
                let style = match line.weight {
                    Weight::Main => styles.main,
                    Weight::Normal => Style::new(),
                    Weight::Quiet => styles.quiet,
                };
                writeln!(f, "  {style}{}{style:#}", line.text)?;
            }
        }
        Ok(())
    }
}

impl Section {
    pub(crate) fn new(title: &str) -> Self {
        Section { title: title.to_owned(), lines: Vec::new() }
    }

    pub(crate) fn main(&mut self, text: impl Into<String>) {
        self.lines.push(Line { text: text.into(), weight: Weight::Main });
    }

    pub(crate) fn say(&mut self, text: impl Into<String>) {
        self.lines.push(Line { text: text.into(), weight: Weight::Normal });
    }

    pub(crate) fn quiet(&mut self, text: impl Into<String>) {
        self.lines.push(Line { text: text.into(), weight: Weight::Quiet });
    }
}

struct Styles {
    heading: Style,
    title: Style,
    main: Style,
    quiet: Style,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Style::new();
        self.write(f, &Styles { heading: plain, title: plain, main: plain, quiet: plain })
    }
}

/// A [`Report`] that prints itself with colours.
#[derive(Clone, Copy, Debug)]
pub struct Styled<'a>(&'a Report);

impl fmt::Display for Styled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let styles = Styles {
            heading: Style::new().bold().underline(),
            title: AnsiColor::Cyan.on_default().bold(),
            main: AnsiColor::Yellow.on_default().bold(),
            quiet: Style::new().dimmed(),
        };
        self.0.write(f, &styles)
    }
}
