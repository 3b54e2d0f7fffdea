//! A place among results, as text that a client hands back: hexadecimal.

use super::SearchError;
use super::collect::{Order, Place};
use super::schema::Number;
use crate::timeline::from_hex;

/// Order (field, direction), whether there is a value, then six numbers.
const LEN: usize = 3 + 6 * 8;

pub(super) fn write(place: &Place, order: Order) -> String {
    let mut bytes = vec![order.field.index() as u8, u8::from(order.descending), u8::from(place.value.is_some())];
    let [high, millis, low] = place.name;
    for number in [place.value.unwrap_or(0), high, millis, low, place.kind, place.stream] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn read(text: &str, order: Order) -> Result<Place, SearchError> {
    let wrong = |detail: &str| SearchError::Invalid { field: "after", detail: detail.to_owned() };
    let bytes: [u8; LEN] = from_hex(text).ok_or_else(|| wrong("not a page token"))?;
    let [field, descending, has_value, numbers @ ..] = bytes;
    if Number::of_index(field.into()) != Some(order.field) || descending != u8::from(order.descending) {
        return Err(wrong("a page token of another order"));
    }
    let mut numbers = numbers.as_chunks::<8>().0.iter().map(|number| u64::from_be_bytes(*number));
    let mut number = || numbers.next().unwrap_or(0);
    let value = number();
    let name = [number(), number(), number()];
    Ok(Place { value: (has_value == 1).then_some(value), name, kind: number(), stream: number() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_and_nothing_else() {
        let order = Order { field: Number::Fps, descending: true };
        for value in [None, Some(0), Some(u64::MAX)] {
            let place = Place { value, name: [1, 2, 3], kind: 2, stream: u64::MAX };
            let text = write(&place, order);
            assert_eq!(read(&text, order), Ok(place));
            assert!(read(&text, Order { descending: false, ..order }).is_err());
            assert!(read(&text, Order { field: Number::Time, ..order }).is_err());
            assert!(read(&text[2..], order).is_err());
        }
        assert!(read("", order).is_err());
        assert!(read(&"é".repeat(LEN), order).is_err());
    }
}
