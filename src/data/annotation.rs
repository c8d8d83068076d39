//! What a Parquet column's annotation says its stored values mean (the format's LogicalTypes, and the older converted
//! types).

use half::f16;
use jiff::{SignedDuration, Timestamp};
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit},
    schema::types::ColumnDescriptor,
};

use super::row::Cell;

/// The meaning of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// No annotation, or one that changes nothing: text, a signed integer.
    AsStored,
    /// An integer without a sign.
    Unsigned,
    /// An integer with its point moved this many digits to the left.
    Decimal(i32),
    /// Days since 1970-01-01.
    Date,
    /// This many a second since midnight.
    Time(i64),
    /// This many a second since 1970-01-01, and whether that is an instant (UTC) or a clock's reading.
    Timestamp(i64, bool),
    /// 16 bytes.
    Uuid,
    /// Two bytes of a number with a fraction.
    Float16,
}

impl Meaning {
    /// Of a column; the type's name where its values are nothing that a field can be.
    pub fn of(column: &ColumnDescriptor) -> Result<Self, &'static str> {
        if let Some(logical) = column.logical_type_ref() {
            return Ok(match logical {
                LogicalType::Integer(integer) if !integer.is_signed => Self::Unsigned,
                LogicalType::Integer(_)
                | LogicalType::String
                | LogicalType::Enum
                | LogicalType::Json
                | LogicalType::Unknown => Self::AsStored,
                LogicalType::Decimal(decimal) => Self::Decimal(decimal.scale),
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
            ConvertedType::DECIMAL => Self::Decimal(column.type_scale()),
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
            Self::Decimal(scale) => decimal(value.into(), scale),
            Self::Date => part(moment(value, 1, 86_400), |text| text.split_once('T').map(|(date, _)| date)),
            Self::Time(unit) => {
                let time = moment(value, unit, 1);
                part(time, |text| text.strip_suffix('Z')?.split_once('T').map(|(_, time)| time))
            }
            Self::Timestamp(unit, true) => part(moment(value, unit, 1), |text| Some(text)),
            Self::Timestamp(unit, false) => part(moment(value, unit, 1), |text| text.strip_suffix('Z')),
            Self::AsStored | Self::Uuid | Self::Float16 => Cell::Integer(value.into()),
        }
    }

    /// A value stored as bytes; `text` says that plain bytes are text.
    pub fn bytes(self, bytes: &[u8], text: bool) -> Cell {
        match self {
            Self::Decimal(scale) => big_endian(bytes).map_or(Cell::Other, |value| decimal(value, scale)),
            Self::Uuid if bytes.len() == 16 => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                Cell::Written(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
            }
            Self::Float16 => match bytes {
                // As for the wider floats: only a whole number could be a class, and no float is one.
                [low, high] if f16::from_le_bytes([*low, *high]).is_nan() => Cell::Missing,
                _ => Cell::Other,
            },
            _ if text => String::from_utf8(bytes.to_vec()).map_or(Cell::NotUtf8, Cell::Text),
            _ => Cell::Other,
        }
    }
}

/// The older 12-byte timestamps: nanoseconds of the day, then the Julian day.
pub(super) fn int96(words: &[u32]) -> Cell {
    let [low, high, day] = *words else { return Cell::Other };
    let nanoseconds = i64::try_from(u64::from(high) << 32 | u64::from(low));
    let days = i64::from(day) - 2_440_588;
    let time = nanoseconds.ok().and_then(|nanoseconds| {
        let time = SignedDuration::from_secs(days * 86_400).checked_add(SignedDuration::from_nanos(nanoseconds))?;
        Timestamp::from_duration(time).ok()
    });
    part(time, |text| text.strip_suffix('Z'))
}

fn a_second(unit: &TimeUnit) -> i64 {
    match unit {
        TimeUnit::MILLIS => 1_000,
        TimeUnit::MICROS => 1_000_000,
        TimeUnit::NANOS => 1_000_000_000,
    }
}

/// `value` units of `seconds` / `a_second` seconds after 1970 began.
fn moment(value: i64, a_second: i64, seconds: i64) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(value.rem_euclid(a_second) * (1_000_000_000 / a_second)).ok()?;
    Timestamp::new(value.div_euclid(a_second).checked_mul(seconds)?, nanoseconds).ok()
}

/// A part of a moment as ISO 8601 writes it; outside the years that it can write there is no such text.
fn part(moment: Option<Timestamp>, cut: impl Fn(&str) -> Option<&str>) -> Cell {
    moment.and_then(|moment| cut(&moment.to_string()).map(str::to_owned)).map_or(Cell::Other, Cell::Written)
}

/// Two's complement of any length that fits.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    let fill = if bytes[0] >= 0x80 { -1 } else { 0 };
    Some(bytes.iter().fold(fill, |value, &byte| value << 8 | i128::from(byte)))
}

/// All digits that the scale says: 10150 of scale 2 is `101.50`.
fn decimal(value: i128, scale: i32) -> Cell {
    let Ok(scale) = usize::try_from(scale) else { return Cell::Other };
    if scale == 0 {
        return Cell::Integer(value);
    }
    if scale > 76 {
        return Cell::Other;
    }
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Cell::Written(format!("{}{whole}.{fraction}", if value < 0 { "-" } else { "" }))
}
