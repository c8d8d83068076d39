//! What a Parquet column's annotation says its stored values mean (the format's LogicalTypes, and the older converted
//! types).

use half::f16;
use jiff::{SignedDuration, civil::DateTime};
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit, Type},
    schema::types::ColumnDescriptor,
};

use super::row::Cell;

/// Most digits of a decimal, those of Arrow's decimal256, and the bytes that hold them.
const DIGITS: i32 = 76;
const BYTES: usize = 32;

/// The meaning of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// No annotation, or one that changes nothing: text, a signed integer.
    AsStored,
    /// An integer without a sign.
    Unsigned,
    /// An integer with its point moved this many digits to the left.
    Decimal(usize),
    /// Days since 1970-01-01.
    Date,
    /// Since midnight, in units; this many are a second.
    Time(i64),
    /// Since 1970-01-01, in units, of which this many are a second; whether that is an instant (UTC) or a clock's
    /// reading.
    Timestamp(i64, bool),
    /// 16 bytes.
    Uuid,
    /// Two bytes of a number with a fraction.
    Float16,
}

impl Meaning {
    /// Of a column. The error ends the sentence "column x is …", for types that no field of a record can be read
    /// from.
    pub fn of(column: &ColumnDescriptor) -> Result<Self, &'static str> {
        match Self::annotated(column)? {
            Self::AsStored if column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY => Err("of bytes, not of text"),
            meaning => Ok(meaning),
        }
    }

    fn annotated(column: &ColumnDescriptor) -> Result<Self, &'static str> {
        let decimal = |precision: i32, scale: i32| match usize::try_from(scale) {
            Ok(places) if scale <= precision && precision <= DIGITS => Ok(Self::Decimal(places)),
            _ if precision > DIGITS => Err("a decimal of more than 76 digits"),
            _ => Err("a decimal whose point is outside its digits"),
        };
        if let Some(logical) = column.logical_type_ref() {
            return Ok(match logical {
                LogicalType::Integer(integer) if !integer.is_signed => Self::Unsigned,
                LogicalType::Integer(_)
                | LogicalType::String
                | LogicalType::Enum
                | LogicalType::Json
                | LogicalType::Unknown => Self::AsStored,
                LogicalType::Decimal(found) => decimal(found.precision, found.scale)?,
                LogicalType::Date => Self::Date,
                LogicalType::Time(time) => Self::Time(a_second(&time.unit)),
                LogicalType::Timestamp(time) => Self::Timestamp(a_second(&time.unit), time.is_adjusted_to_u_t_c),
                LogicalType::Uuid => Self::Uuid,
                LogicalType::Float16 => Self::Float16,
                LogicalType::List => return Err("a list"),
                LogicalType::Map => return Err("a map"),
                LogicalType::Bson => return Err("of type BSON"),
                _ => return Err("of a type that is neither text nor a number"),
            });
        }
        Ok(match column.converted_type() {
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => {
                Self::Unsigned
            }
            ConvertedType::DECIMAL => decimal(column.type_precision(), column.type_scale())?,
            ConvertedType::DATE => Self::Date,
            ConvertedType::TIME_MILLIS => Self::Time(1_000),
            ConvertedType::TIME_MICROS => Self::Time(1_000_000),
            ConvertedType::TIMESTAMP_MILLIS => Self::Timestamp(1_000, true),
            ConvertedType::TIMESTAMP_MICROS => Self::Timestamp(1_000_000, true),
            ConvertedType::BSON => return Err("of type BSON"),
            ConvertedType::INTERVAL => return Err("an interval"),
            _ => Self::AsStored,
        })
    }

    /// A value stored in 32 bits.
    pub fn int32(self, value: i32) -> Cell {
        match self {
            Self::Unsigned => Cell::Integer(value.cast_unsigned().into()),
            _ => self.int64(value.into()),
        }
    }

    /// A value stored in 64 bits.
    pub fn int64(self, value: i64) -> Cell {
        match self {
            Self::Unsigned => Cell::Integer(value.cast_unsigned().into()),
            Self::Decimal(scale) => decimal(&value.to_be_bytes(), scale),
            Self::Date => written(moment(value, 1, 86_400).map(|moment| moment.date())),
            // A day has no further hours.
            Self::Time(unit) if !(0..86_400 * unit).contains(&value) => Cell::Other,
            Self::Time(unit) => written(moment(value, unit, 1).map(|moment| moment.time())),
            Self::Timestamp(unit, true) => written(moment(value, unit, 1).map(|moment| format!("{moment}Z"))),
            Self::Timestamp(unit, false) => written(moment(value, unit, 1)),
            Self::AsStored | Self::Uuid | Self::Float16 => Cell::Integer(value.into()),
        }
    }

    /// A value stored as bytes, which without an annotation are text if `text` says so.
    pub fn bytes(self, bytes: &[u8], text: bool) -> Cell {
        match self {
            Self::Decimal(scale) => decimal(bytes, scale),
            Self::Uuid if bytes.len() == 16 => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                Cell::Written(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
            }
            Self::Float16 => match bytes {
                [low, high] => float(f16::from_le_bytes([*low, *high]).is_nan()),
                _ => Cell::Other,
            },
            _ if text => String::from_utf8(bytes.to_vec()).map_or(Cell::NotUtf8, Cell::Text),
            _ => Cell::Other,
        }
    }
}

/// A number of any width with a fraction: no field is one, and NaN is how pandas writes that there is no value.
pub(super) fn float(is_nan: bool) -> Cell {
    if is_nan { Cell::Missing } else { Cell::Other }
}

/// The older 12-byte timestamps: nanoseconds of the day, then the Julian day.
pub(super) fn int96(words: &[u32]) -> Cell {
    let [low, high, day] = *words else { return Cell::Other };
    let nanoseconds = i64::try_from(u64::from(high) << 32 | u64::from(low));
    let days = i64::from(day) - 2_440_588;
    let after =
        |nanoseconds| since_1970(SignedDuration::new(days * 86_400, 0), SignedDuration::from_nanos(nanoseconds));
    written(nanoseconds.ok().and_then(after))
}

fn a_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

/// 1970-01-01 plus `value · seconds / a_second` seconds: `seconds` is the length of a unit that is longer than one.
fn moment(value: i64, a_second: i64, seconds: i64) -> Option<DateTime> {
    let whole = SignedDuration::from_secs(value.div_euclid(a_second).checked_mul(seconds)?);
    since_1970(whole, SignedDuration::from_nanos(value.rem_euclid(a_second) * (1_000_000_000 / a_second)))
}

/// None outside of the years −9999 to 9999.
fn since_1970(whole: SignedDuration, more: SignedDuration) -> Option<DateTime> {
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0).checked_add(whole.checked_add(more)?).ok()
}

/// As ISO 8601 writes it.
fn written(value: Option<impl ToString>) -> Cell {
    value.map_or(Cell::Other, |value| Cell::Written(value.to_string()))
}

/// A number in two's complement, its most significant byte first, with all digits that the scale says: 10150 of scale 2
/// is `101.50`. More bytes than [`BYTES`] hold no number that the format allows.
fn decimal(bytes: &[u8], scale: usize) -> Cell {
    let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let sign = if negative { 0xff } else { 0 };
    let magnitude = bytes.iter().skip_while(|byte| **byte == sign);
    if bytes.is_empty() || magnitude.clone().count() > BYTES {
        return Cell::Other;
    }
    // The last digit first.
    let mut digits: Vec<u8> = Vec::new();
    let mut multiply_and_add = |factor: u32, term: u32| {
        let mut carry = term;
        for digit in &mut digits {
            carry += u32::from(*digit) * factor;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    };
    magnitude.for_each(|byte| multiply_and_add(256, u32::from(byte ^ sign)));
    // −x is one more than x's complement.
    multiply_and_add(1, negative.into());
    digits.resize(digits.len().max(scale + 1), 0);
    let digits: String = digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect();
    let sign = if negative { "-" } else { "" };
    if scale == 0 {
        let number = format!("{sign}{digits}");
        return number.parse().map_or(Cell::Written(number), Cell::Integer);
    }
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Cell::Written(format!("{sign}{whole}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_of_any_length_has_all_its_digits() {
        let written = |text: &str| Cell::Written(text.to_owned());
        let long = |first: u8, rest: u8| [vec![first], vec![rest; 39]].concat();
        for (bytes, scale, cell) in [
            (vec![0x27, 0xa6], 2, written("101.50")),
            (vec![0xff], 2, written("-0.01")),
            (vec![0], 3, written("0.000")),
            (vec![0x80], 0, Cell::Integer(-128)),
            (long(0xff, 0xff), 0, Cell::Integer(-1)),
            (long(0, 0), 0, Cell::Integer(0)),
            // Too long, and empty.
            (long(1, 0), 0, Cell::Other),
            (vec![], 2, Cell::Other),
        ] {
            assert!(Meaning::Decimal(scale).bytes(&bytes, true) == cell, "{bytes:?}, scale {scale}");
        }
    }

    #[test]
    fn a_time_is_within_a_day() {
        let noon = Cell::Written("12:00:00".into());
        assert!(Meaning::Time(1_000).int64(43_200_000) == noon && Meaning::Time(1_000).int64(0) != Cell::Other);
        for outside in [-1, 86_400_000, i64::MAX, i64::MIN] {
            assert!(Meaning::Time(1_000).int64(outside) == Cell::Other, "{outside}");
        }
    }
}
