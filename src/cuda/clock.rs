//! Time on the device, by events on its stream.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{result, sys};

use super::driver::{Device, failed};
use crate::error::Result;

/// Events that nobody has.
#[derive(Default)]
pub struct Events(Vec<sys::CUevent>);

impl Events {
    /// Destroys them.
    pub(super) fn clear(&mut self) {
        for event in self.0.drain(..) {
            // SAFETY: `Device::mark` made it, and whoever had it gave it back.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}

/// A place in the stream.
struct Mark {
    device: Arc<Device>,
    event: sys::CUevent,
}

// SAFETY: an event may be used from any thread; `bind` makes its context current first.
unsafe impl Send for Mark {}

impl Drop for Mark {
    fn drop(&mut self) {
        self.device.events().0.push(self.event);
    }
}

/// Begin and end of some work.
pub struct Clock {
    begin: Mark,
    end: Mark,
}

impl Clock {
    /// What the work between took on the device, once it has ended.
    pub fn elapsed(&self) -> Result<Duration> {
        self.begin.device.bind()?;
        // SAFETY: both events were recorded on the same stream, and are this clock's.
        let took = unsafe {
            result::event::synchronize(self.end.event)
                .and_then(|()| result::event::elapsed(self.begin.event, self.end.event))
        };
        let milliseconds = took.map_err(|e| failed("timing the device", e))?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds).max(0.0) / 1e3))
    }
}

impl Device {
    /// Marks the end of what this thread enqueued.
    fn mark(self: &Arc<Self>) -> Result<Mark> {
        self.hand_over()?;
        self.bind()?;
        let known = self.events().0.pop();
        let event = match known {
            Some(event) => event,
            None => result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(|e| failed("event of the device", e))?,
        };
        let mark = Mark { device: self.clone(), event };
        // SAFETY: event and stream are this device's.
        unsafe { result::event::record(event, self.stream()) }.map_err(|e| failed("marking the stream", e))?;
        Ok(mark)
    }

    /// Runs `work` as one [batch](Self::together), with a clock.
    pub(super) fn timed<T>(self: &Arc<Self>, work: impl FnOnce() -> Result<T>) -> Result<(T, Clock)> {
        let begin = self.mark()?;
        let result = self.together(work)?;
        Ok((result, Clock { begin, end: self.mark()? }))
    }
}
