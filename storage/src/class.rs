//! Retention classes: streams that are kept for similar times share segment files, so that whole files fall away.
//!
//! What a stream keeps by bytes does not count: how long that lasts is known only when it goes. The bound of a class is four
//! to sixteen times that of the one before: within a class the last to go holds up the first by no more than that.

use vidar_core::control::Control;

use crate::controls::Controls;

/// Files that are open at the same time, at most.
pub(crate) const CLASS_COUNT: usize = 4;
/// Hours up to which a class but the last goes: a shift, four days, two months.
const HOURS: [u32; CLASS_COUNT - 1] = [6, 96, 1440];

/// The class of what is kept for so many hours.
pub(crate) fn of_hours(hours: u32) -> u8 {
    HOURS.iter().filter(|bound| hours > **bound).count() as u8
}

/// Of what nobody said how long it is kept.
pub(crate) const LONGEST: u8 = CLASS_COUNT as u8 - 1;

/// The class of the stream that a control record speaks of, once it is in force.
pub(crate) fn of_control(controls: &Controls, body: &Control) -> u8 {
    match body {
        Control::Stream(record) => of_hours(record.settings.retention_hours),
        body => body.stream().map_or(LONGEST, |stream| controls.class(stream)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_a_day_a_month_and_a_year_never_share_a_file() {
        let classes = [1, 6, 7, 24, 96, 97, 168, 720, 1440, 1441, 8760, 87_600].map(of_hours);
        assert_eq!(classes, [0, 0, 1, 1, 1, 2, 2, 2, 2, LONGEST, LONGEST, LONGEST]);
    }
}
