//! Finds dumps in a serial log and explains them.
