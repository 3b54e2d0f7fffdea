//! The machine that numbers were measured on.

use std::fmt;
use std::fs;
use std::thread;

/// What decides how fast it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    cores: usize,
    model: String,
    /// Runnable threads over the last minute: well above 0 before a run, the machine is busy with something else.
    load: String,
}

impl Machine {
    /// The one this runs on.
    #[must_use]
    pub fn of_this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            cores: thread::available_parallelism().map_or(1, Into::into),
            model: model_name(&read("/proc/cpuinfo")).unwrap_or("unknown CPU").to_owned(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().trim().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "machine: {} cores, {}; load before the run: {}", self.cores, self.model, self.load)
    }
}

/// Of the first processor. x86 says `model name`, some others `Model` or `Hardware`.
fn model_name(cpuinfo: &str) -> Option<&str> {
    let value = |wanted: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(name, value)| (name.trim() == wanted).then(|| value.trim()))
    };
    ["model name", "Model", "Hardware"].into_iter().find_map(value).filter(|model| !model.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_or_not() {
        assert_eq!(model_name("processor\t: 0\nmodel\t\t: 167\nmodel name\t: A CPU: fast\n"), Some("A CPU: fast"));
        assert_eq!(model_name("processor\t: 0\nModel\t: A board\n"), Some("A board"));
        assert_eq!(model_name("processor\t: 0\nmodel name\t:\n"), None);
        assert_eq!(model_name(""), None);
    }
}
