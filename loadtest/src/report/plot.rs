//! Line plots as inline SVG, small enough that a report needs nothing from anywhere else.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// One line. Lines of the same `class` have the same colour.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) class: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

/// How values are placed along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten.
    Log,
    /// The value is a quantile, and each further nine takes the same room.
    Nines,
}

/// A plot.
#[derive(Clone, Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) x: (&'a str, Scale),
    pub(crate) y: (&'a str, Scale),
    pub(crate) lines: Vec<Line>,
}

struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(scale: Scale, values: impl Iterator<Item = f64> + Clone) -> Self {
        let values = values.map(|value| position(scale, value));
        let most = values.clone().fold(f64::MIN, f64::max);
        let least = values.fold(f64::MAX, f64::min);
        match scale {
            Scale::Linear => Self { scale, from: 0.0, to: nice(most * 1.05) },
            Scale::Log => Self { scale, from: least.floor(), to: most.ceil().max(least.floor() + 1.0) },
            Scale::Nines => Self { scale, from: 0.0, to: most.ceil().max(1.0) },
        }
    }

    /// Between 0 and 1.
    fn share(&self, value: f64) -> f64 {
        ((position(self.scale, value) - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    /// Values to mark, and what to call them.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.scale {
            Scale::Linear => (0..=4)
                .map(|i| self.from + (self.to - self.from) * f64::from(i) / 4.0)
                .map(|value| (value, short(value)))
                .collect(),
            Scale::Log => {
                (self.from as i32..=self.to as i32).map(|power| 10f64.powi(power)).map(|v| (v, short(v))).collect()
            }
            Scale::Nines => (0..=self.to as i32)
                .map(|nines| 1.0 - 10f64.powi(-nines))
                .map(|quantile| (quantile, format!("p{}", trim(format!("{:.4}", quantile * 100.0)))))
                .collect(),
        }
    }
}

impl Plot<'_> {
    /// The plot as an `<svg>` element; empty where there is nothing to show.
    pub(crate) fn svg(&self) -> String {
        let points = self.lines.iter().flat_map(|line| &line.points);
        if points.clone().next().is_none() {
            return String::new();
        }
        let x_axis = Axis::over(self.x.1, points.clone().map(|p| p.0));
        let y_axis = Axis::over(self.y.1, points.map(|p| p.1));
        let x = |value: f64| LEFT + x_axis.share(value) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - y_axis.share(value) * (HEIGHT - TOP - BOTTOM);
        let mut svg =
            format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{} by {}">"#, self.y.0, self.x.0);
        // Writing to a string does not fail.
        for (value, name) in y_axis.ticks() {
            let at = y(value);
            let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#, WIDTH - RIGHT);
            let _ = write!(svg, r#"<text class="tick end" x="{}" y="{:.1}">{name}</text>"#, LEFT - 8.0, at + 4.0);
        }
        for (value, name) in x_axis.ticks() {
            let (at, base) = (x(value), HEIGHT - BOTTOM);
            let _ = write!(svg, r#"<line class="grid" x1="{at:.1}" x2="{at:.1}" y1="{TOP}" y2="{base}"/>"#);
            let _ = write!(svg, r#"<text class="tick middle" x="{at:.1}" y="{}">{name}</text>"#, base + 17.0);
        }
        let _ =
            write!(svg, r#"<text class="axis middle" x="{}" y="{}">{}</text>"#, WIDTH / 2.0, HEIGHT - 4.0, self.x.0);
        let _ = write!(svg, r#"<text class="axis" x="{}" y="{}">{}</text>"#, LEFT + 6.0, TOP + 10.0, self.y.0);
        for line in &self.lines {
            let points: Vec<_> = line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
            let _ = write!(svg, r#"<polyline class="line c{}" points="{}"/>"#, line.class, points.join(" "));
        }
        svg + "</svg>"
    }
}

fn position(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.max(1e-3).log10(),
        Scale::Nines => -(1.0 - value).max(1e-9).log10(),
    }
}

/// The next value above `value` that divides by four into round numbers.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|s| *s >= value)
        .unwrap_or(value)
}

/// A number for people, to three digits: 1234 is 1.23k.
pub(crate) fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        big if big >= 999.5e6 => (value / 1e9, "G"),
        big if big >= 999.5e3 => (value / 1e6, "M"),
        big if big >= 999.5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        big if big >= 99.95 => 0,
        big if big >= 9.995 => 1,
        big if big >= 0.9995 => 2,
        _ => 3,
    };
    trim(format!("{scaled:.decimals$}")) + unit
}

/// Without the zeros at the end of a fraction.
fn trim(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_each_line_and_marks_round_numbers() {
        let line = |class, y| Line { class, points: vec![(0.0, y), (0.9, y * 3.0), (0.99, y * 9.0)] };
        let svg =
            Plot { x: ("share", Scale::Nines), y: ("µs", Scale::Log), lines: vec![line(0, 20.0), line(1, 40.0)] }.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        for mark in [">p90<", ">p99<", ">10<", ">1k<", "µs"] {
            assert!(svg.contains(mark), "{mark} in {svg}");
        }
        assert!(!svg.contains("NaN"));
        assert_eq!(Plot { x: ("", Scale::Linear), y: ("", Scale::Linear), lines: vec![] }.svg(), "");
        assert_eq!(
            (short(306.175), short(5357.6), short(999.9), short(0.0)),
            ("306".to_owned(), "5.36k".to_owned(), "1k".to_owned(), "0".to_owned())
        );
        assert_eq!((nice(95_000.0), short(120_000.0), short(0.25)), (100_000.0, "120k".to_owned(), "0.25".to_owned()));
    }
}
