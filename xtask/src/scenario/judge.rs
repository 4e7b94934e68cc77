//! The judge: lines and ends go in, actions and a verdict come out. It knows no machine.

use std::time::Duration;

use super::{Ends, Scenario, Step, describe, is_ready};
use crate::qemu::End;

pub(super) struct Judge<'a> {
    scenario: &'a Scenario,
    /// The step that is waited for; past the end when the script is through.
    at: usize,
}

#[derive(Debug)]
pub(super) enum Action {
    Do(Step),
    Verdict(Result<(), String>),
}

impl<'a> Judge<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Judge { scenario, at: 0 }
    }

    /// What is to be done before anything is heard.
    pub(super) fn begin(&mut self) -> Vec<Action> {
        self.advance()
    }

    /// A line was heard.
    pub(super) fn line(&mut self, line: &str) -> Vec<Action> {
        if let Some(pattern) = self.scenario.forbidden.iter().find(|pattern| pattern.is_match(line)) {
            return vec![Action::Verdict(Err(format!("a forbidden line (/{pattern}/): {line}")))];
        }
        match self.scenario.script.get(self.at) {
            Some(Step::Expect(pattern)) if pattern.is_match(line) => {
                self.at += 1;
                self.advance()
            }
            None if self.scenario.ends == Ends::Ready && is_ready(line) => vec![Action::Verdict(Ok(()))],
            Some(_) if is_ready(line) && self.scenario.ends == Ends::Ready => {
                vec![Action::Verdict(Err(format!("the prompt came before {}", self.waits_for())))]
            }
            _ => Vec::new(),
        }
    }

    /// The machine has ended.
    pub(super) fn end(&self, end: &End) -> Result<(), String> {
        if self.at < self.scenario.script.len() {
            return Err(format!("{} before {}", describe(end), self.waits_for()));
        }
        match (self.scenario.ends, end) {
            (Ends::Exit(wanted), End::Exit(code)) if wanted == *code => Ok(()),
            (Ends::PowerOff, End::PowerOff) => Ok(()),
            _ => Err(format!("{}, but {} was to come", describe(end), self.waits_for())),
        }
    }

    /// Whether the machine may halt now.
    pub(super) fn may_halt(&self) -> bool {
        self.scenario.ends == Ends::Halted && self.at == self.scenario.script.len()
    }

    pub(super) fn halted(&self) -> Result<(), String> {
        Ok(())
    }

    /// The limit has passed.
    pub(super) fn overdue(&self, limit: Duration) -> String {
        format!("{} s have passed without {}", limit.as_secs(), self.waits_for())
    }

    fn advance(&mut self) -> Vec<Action> {
        let steps = self.scenario.script[self.at..].iter();
        let actions: Vec<_> = steps.take_while(|step| !matches!(step, Step::Expect(_))).cloned().collect();
        self.at += actions.len();
        actions.into_iter().map(Action::Do).collect()
    }

    fn waits_for(&self) -> String {
        match self.scenario.script.get(self.at) {
            Some(Step::Expect(pattern)) => format!("a line like /{pattern}/"),
            Some(step) => format!("{step:?}"),
            None => match self.scenario.ends {
                Ends::Exit(code) => format!("an exit with code {code:#x}"),
                Ends::PowerOff => "a power off".to_owned(),
                Ends::Halted => "a halt".to_owned(),
                Ends::Ready => "the prompt".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    fn scenario() -> Scenario {
        Scenario::boot("a/b", "first", Bundle::default())
            .expect("^first: ")
            .then(Step::Nmi)
            .then(Step::Type("go".to_owned()))
            .expect("^second: ")
    }

    /// What became of the lines: the verdict so far, and the judge.
    fn hear<'a>(
        scenario: &'a Scenario,
        lines: &[&str],
    ) -> (Judge<'a>, Vec<String>, Option<Result<(), String>>) {
        let mut judge = Judge::new(scenario);
        let mut done = Vec::new();
        let mut actions = judge.begin();
        let mut lines = lines.iter();
        loop {
            for action in actions {
                match action {
                    Action::Do(step) => done.push(format!("{step:?}")),
                    Action::Verdict(verdict) => return (judge, done, Some(verdict)),
                }
            }
            let Some(line) = lines.next() else { return (judge, done, None) };
            actions = judge.line(line);
        }
    }

    #[test]
    fn lines_in_order_and_the_right_end_pass() {
        let scenario = scenario();
        let (judge, done, verdict) = hear(&scenario, &["noise", "first: 1", "noise", "second: 2", "more"]);
        assert_eq!(done, ["Nmi", "Type(\"go\")"]);
        assert_eq!(verdict, None);
        assert_eq!(judge.end(&End::PowerOff), Ok(()));
    }

    #[test]
    fn lines_in_the_wrong_order_fail() {
        let scenario = scenario();
        let (judge, _, _) = hear(&scenario, &["second: 2", "first: 1"]);
        assert!(judge.end(&End::PowerOff).unwrap_err().contains("^second: "));
    }

    #[test]
    fn a_reset_always_fails() {
        for ends in [Ends::PowerOff, Ends::Exit(0x10), Ends::Halted, Ends::Ready] {
            let scenario = scenario().ends(ends);
            let (judge, _, _) = hear(&scenario, &["first: 1", "second: 2"]);
            assert!(judge.end(&End::Reset).is_err(), "{ends:?}");
        }
    }

    #[test]
    fn another_exit_code_than_the_one_asked_for_fails() {
        let scenario = scenario().ends(Ends::Exit(0x10));
        let (judge, _, _) = hear(&scenario, &["first: 1", "second: 2"]);
        assert_eq!(judge.end(&End::Exit(0x10)), Ok(()));
        assert!(judge.end(&End::Exit(0x11)).is_err());
        assert!(judge.end(&End::PowerOff).is_err());
    }

    #[test]
    fn a_forbidden_line_fails_at_once_wherever_it_comes() {
        let scenario = scenario().forbid("^oops");
        for lines in [&["oops"][..], &["first: 1", "oops"], &["first: 1", "second: 2", "oops"]] {
            assert!(matches!(hear(&scenario, lines).2, Some(Err(_))), "{lines:?}");
        }
        assert!(matches!(hear(&scenario, &["first: panicked at x"]).2, Some(Err(_))));
    }

    #[test]
    fn the_prompt_ends_a_command_only_after_all_that_was_expected() {
        let scenario = Scenario::lab("a/b", "go").expect("^done$");
        assert_eq!(hear(&scenario, &["done", "lab: ready"]).2, Some(Ok(())));
        assert!(matches!(hear(&scenario, &["lab: ready"]).2, Some(Err(_))));
        assert_eq!(hear(&scenario, &["done"]).2, None);
    }

    #[test]
    fn a_halt_counts_only_when_the_script_is_through_and_it_was_asked_for() {
        let halts = scenario().ends(Ends::Halted);
        assert!(!hear(&halts, &["first: 1"]).0.may_halt());
        assert!(hear(&halts, &["first: 1", "second: 2"]).0.may_halt());
        assert!(!hear(&scenario(), &["first: 1", "second: 2"]).0.may_halt());
    }
}
