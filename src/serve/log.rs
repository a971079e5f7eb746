//! One line of JSON per event, on standard error: `{"time", "level", "event", …}`.
//!
//! Requests carry the id that their caller got in `x-fal-request-id`; bodies, keys and addresses of pictures are not
//! logged.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// The log.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// Whether anything is written at all.
    pub on: bool,
}

impl Log {
    /// Something that worked.
    pub fn info(&self, event: &str, fields: &[(&str, Value)]) {
        self.line("info", event, fields);
    }

    /// Something that may not be meant so.
    pub fn warn(&self, event: &str, message: &str) {
        self.line("warn", event, &[("message", message.into())]);
    }

    /// Something that failed here rather than at the caller's.
    pub fn error(&self, event: &str, message: &str) {
        self.line("error", event, &[("message", message.into())]);
    }

    /// Why a request failed, where that is not its caller's doing.
    pub fn failed(&self, request_id: &str, cause: &str) {
        self.line("error", "failed", &[("request_id", request_id.into()), ("message", cause.into())]);
    }

    fn line(&self, level: &str, event: &str, fields: &[(&str, Value)]) {
        if !self.on {
            return;
        }
        let mut line = Map::new();
        line.insert("time".into(), timestamp(SystemTime::now()).into());
        line.insert("level".into(), level.into());
        line.insert("event".into(), event.into());
        line.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        // One write, so that lines of several threads do not mix; where nobody listens, nothing is lost.
        let _ = std::io::stderr().lock().write_all(format!("{}\n", Value::Object(line)).as_bytes());
    }
}

/// `2026-01-31T12:00:00.123Z`
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", since.subsec_millis())
}

/// Year, month and day of a day after 1970-01-01, by eras of 400 years that begin in March (H. Hinnant,
/// "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        let at = |s: u64, ms: u32| timestamp(UNIX_EPOCH + Duration::new(s, ms * 1_000_000));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 7), "2000-02-28T23:59:59.007Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_305_600, 0), "2026-11-22T00:00:00.000Z");
        assert_eq!(at(4_107_542_399, 999), "2100-02-28T23:59:59.999Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }
}
