//! What every figure is drawn with: one font, few colours, axes, legend; SVG and PNG from the same code.
//!
//! Colours are few and fixed, because `report.html` recolours ink, paper and grid of its inline SVG for dark screens by
//! these very values.

use std::{ops::Range, sync::OnceLock};

use plotters::{
    chart::{ChartBuilder, ChartContext, SeriesLabelPosition},
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::{FontStyle, register_font},
};

use crate::{
    error::{Error, Result},
    metrics::curves::BandedCurve,
    report::Table,
    storage::{AtomicDir, packed, unpack},
};

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(0x1f, 0x29, 0x33);
/// Lesser text, reference lines.
pub(super) const MUTED: RGBColor = RGBColor(0x6b, 0x77, 0x85);
/// Grid.
pub(super) const GRID: RGBColor = RGBColor(0xdd, 0xe2, 0xe8);
/// Background.
pub(super) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// The model; class 1.
pub(super) const BLUE: RGBColor = RGBColor(0x2b, 0x6c, 0xd4);
/// What stands beside it; class 0.
pub(super) const ORANGE: RGBColor = RGBColor(0xd9, 0x73, 0x0d);

/// Opacity of a confidence band.
pub(super) const BAND: f64 = 0.18;

/// PNG pixels a unit of the drawing: sharp on paper.
const PNG_SCALE: u32 = 2;

/// A drawing surface with its shift.
pub(super) type Area<B> = DrawingArea<B, Shift>;
/// A chart over two numeric axes.
pub(super) type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// What drawing on a backend comes to.
pub(super) type Drawn<B, T = ()> = std::result::Result<T, DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Something to draw, once on each backend.
pub(super) trait Picture {
    /// Width and height in SVG units.
    fn size(&self) -> (u32, u32) {
        (720, 520)
    }
    /// Name of its files.
    fn name(&self) -> &'static str;
    /// Heading.
    fn title(&self) -> String;
    /// How to read it.
    fn caption(&self) -> String;
    /// The numbers that it draws.
    fn data(&self) -> Data;
    /// Draws it, all lengths times `pen.scale`.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>, pen: Pen) -> Drawn<B>;
}

/// The numbers behind a figure, to the last bit: heads, and a row a point.
pub(super) struct Data(Table);

impl Data {
    /// Without a row yet.
    pub(super) fn new(columns: &[&str]) -> Self {
        Self(Table::new("", "", columns))
    }

    /// With these rows.
    pub(super) fn of<const N: usize>(columns: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Self {
        let mut data = Self::new(&columns);
        rows.into_iter().for_each(|row| data.row(row));
        data
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.row(cells);
    }
}

/// A number as a program reads it; nothing where there is none.
pub(super) fn exact(value: impl Into<Option<f64>>) -> String {
    value.into().filter(|value| value.is_finite()).map_or_else(String::new, |value| value.to_string())
}

/// A value and the ends of its interval.
pub(super) fn with_ends(value: impl Into<Option<f64>>, ends: Option<[f64; 2]>) -> [String; 3] {
    [exact(value), exact(ends.map(|ends| ends[0])), exact(ends.map(|ends| ends[1]))]
}

/// A row a point of a curve: x, y, and the ends of its band.
pub(super) fn curve_rows(curve: &BandedCurve) -> impl Iterator<Item = [String; 4]> {
    curve.x.iter().zip(&curve.y).enumerate().map(|(k, (&x, &y))| {
        let [y, low, high] = with_ends(y, curve.band.get(k).copied().flatten());
        [exact(x), y, low, high]
    })
}

/// A drawn figure: its SVG, for the report, and what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    /// Name of its files, without extension.
    pub name: &'static str,
    /// Heading.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The SVG document.
    pub svg: String,
}

/// Draws `picture` as `NAME.svg` and `NAME.png` into `dir`, its numbers beside them as `NAME.csv`.
pub(super) fn emit<P: Picture>(picture: &P, dir: &AtomicDir) -> Result<Figure> {
    fonts()?;
    let failed = |e: &dyn std::fmt::Display| Error::run(format!("cannot draw {}: {e}", picture.name()));
    let (width, height) = picture.size();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        area.fill(&PAPER)
            .and_then(|()| picture.draw(&area, Pen { scale: 1 }))
            .and_then(|()| area.present())
            .map_err(|e| failed(&e))?;
    }
    dir.write_file(&format!("{}.svg", picture.name()), svg.as_bytes())?;
    let size = (width * PNG_SCALE, height * PNG_SCALE);
    let mut pixels = vec![0; 3 * size.0 as usize * size.1 as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        let drawn = area
            .fill(&PAPER)
            .and_then(|()| picture.draw(&area, Pen { scale: PNG_SCALE }))
            .and_then(|()| area.present());
        drawn.map_err(|e| failed(&e))?;
    }
    // Encoded in memory: a full disk is then our own write's error, not the drawing library's.
    let png = encode(&pixels, size).map_err(|e| failed(&e))?;
    dir.write_file(&format!("{}.png", picture.name()), &png)?;
    dir.write_file(&format!("{}.csv", picture.name()), picture.data().0.csv().as_bytes())?;
    Ok(Figure { name: picture.name(), title: picture.title(), caption: picture.caption(), svg })
}

fn encode(pixels: &[u8], (width, height): (u32, u32)) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// Registers the one font, for neither backend may rely on fonts of the system.
fn fonts() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    // Ubuntu Light.
    let register = || {
        unpack(packed!("font.ttf"))
            .is_ok_and(|font| register_font("sans-serif", FontStyle::Normal, Vec::leak(font)).is_ok())
    };
    if *REGISTERED.get_or_init(register) { Ok(()) } else { Err(Error::run("the built-in font cannot be read")) }
}

/// Lengths and text at the backend's scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    scale: u32,
}

impl Pen {
    /// A length.
    pub(super) fn px(self, length: u32) -> u32 {
        length * self.scale
    }

    /// Text of a size, in ink of a colour.
    pub(super) fn text(self, size: u32, color: RGBColor) -> TextStyle<'static> {
        // Plotters' SVG sizes are 1.24 times the font size it writes.
        ("sans-serif", f64::from(self.px(size)) * 1.24).into_font().color(&color)
    }

    /// A line of a colour and width.
    pub(super) fn line(self, color: RGBColor, width: u32) -> ShapeStyle {
        ShapeStyle::from(&color).stroke_width(self.px(width))
    }

    /// Axes over these ranges below a heading; charts and their legend are added by the caller.
    pub(super) fn axes<'a, B: DrawingBackend>(
        self,
        area: &'a Area<B>,
        title: &str,
        (x_name, x): (&str, Range<f64>),
        (y_name, y): (&str, Range<f64>),
    ) -> Drawn<B, Chart<'a, B>> {
        let integers = x_name == EPOCH;
        // The strip above 1 holds the legend.
        let share = y.end > 1.0 && y.end < 1.5;
        let mut chart = ChartBuilder::on(area)
            .caption(title, self.text(21, INK))
            .margin(self.px(14))
            .margin_right(self.px(26))
            .x_label_area_size(self.px(56))
            .y_label_area_size(self.px(78))
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(x_name)
            .y_desc(y_name)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|value| if integers { whole(*value) } else { tick(*value) })
            .y_label_formatter(&|value| if share && *value > 1.001 { String::new() } else { tick(*value) })
            .light_line_style(TRANSPARENT)
            .bold_line_style(self.line(GRID, 1))
            .axis_style(self.line(MUTED, 1))
            .label_style(self.text(16, INK))
            .axis_desc_style(self.text(17, INK))
            .set_all_tick_mark_size(self.px(4))
            .draw()?;
        Ok(chart)
    }

    /// The legend of a chart's labelled series.
    pub(super) fn legend<'a, B: DrawingBackend + 'a>(
        self,
        chart: &mut Chart<'a, B>,
        position: SeriesLabelPosition,
    ) -> Drawn<B> {
        chart
            .configure_series_labels()
            .position(position)
            .margin(self.px(12))
            .legend_area_size(self.px(30))
            .label_font(self.text(16, INK))
            .background_style(PAPER.filled())
            .border_style(self.line(GRID, 1))
            .draw()
    }

    /// The legend's stroke of a series.
    pub(super) fn key<B: DrawingBackend>(
        self,
        color: RGBColor,
    ) -> impl Fn((i32, i32)) -> DynElement<'static, B, (i32, i32)> {
        move |(x, y)| PathElement::new(vec![(x, y), (x + self.px(22) as i32, y)], self.line(color, 3)).into_dyn()
    }

    /// A vertical bar from `low` to `high` at `x`, for an interval.
    pub(super) fn whisker(self, x: f64, [low, high]: [f64; 2], color: RGBColor) -> PathElement<(f64, f64)> {
        PathElement::new(vec![(x, low), (x, high)], self.line(color, 1))
    }
}

/// Name of the one axis that counts.
pub(super) const EPOCH: &str = "Epoch";

/// A tick's number without trailing zeros or a minus before zero.
fn tick(value: f64) -> String {
    if value.abs() >= 1000.0 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// An epoch's number; between two epochs there is none.
fn whole(value: f64) -> String {
    if (value - value.round()).abs() < 1e-9 { format!("{value:.0}") } else { String::new() }
}

/// The outline of a band: along its lower edge and back along the upper one.
pub(super) fn outline(x: &[f64], band: &[Option<[f64; 2]>]) -> Vec<(f64, f64)> {
    let known: Vec<(f64, [f64; 2])> = x.iter().zip(band).filter_map(|(&x, band)| Some((x, (*band)?))).collect();
    let lower = known.iter().map(|&(x, [low, _])| (x, low));
    lower.chain(known.iter().rev().map(|&(x, [_, high])| (x, high))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_short() {
        assert_eq!(
            [tick(0.2), tick(-0.0), tick(1.0), tick(0.125), tick(2500.0), tick(120.0)],
            ["0.2", "0", "1", "0.125", "2500", "120"]
        );
        assert_eq!([whole(3.0), whole(2.5)], ["3", ""]);
    }

    #[test]
    fn an_outline_goes_there_and_back() {
        assert_eq!(
            outline(&[0.0, 0.5, 1.0], &[Some([0.1, 0.2]), None, Some([0.3, 0.4])]),
            [(0.0, 0.1), (1.0, 0.3), (1.0, 0.4), (0.0, 0.2)]
        );
    }
}
