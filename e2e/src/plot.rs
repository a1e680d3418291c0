//! A plot as SVG: lines over logarithmic axes, for documents.

use std::fmt::Write as _;

/// A plot. Both axes are logarithmic, and all values above 0.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// What the horizontal axis counts.
    pub x: String,
    /// What the vertical axis counts.
    pub y: String,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Stands at its end.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Around the axes: left, top, right, bottom.
const MARGIN: [f64; 4] = [70.0, 40.0, 170.0, 55.0];
const COLOURS: [&str; 4] = ["#2563eb", "#dc2626", "#16a34a", "#9333ea"];

/// Powers of ten from just below the least to just above the greatest.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (i32, i32) {
    let least = values.clone().fold(f64::MAX, f64::min).log10().floor();
    let greatest = values.fold(f64::MIN_POSITIVE, f64::max).log10().ceil();
    (least as i32, (greatest as i32).max(least as i32 + 1))
}

impl Plot {
    /// The plot's text.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (left, right) = decades(points().map(|p| p.0));
        let (low, high) = decades(points().map(|p| p.1));
        let [ml, mt, mr, mb] = MARGIN;
        let share = |value: f64, from: i32, to: i32| (value.log10() - f64::from(from)) / f64::from(to - from);
        let at_x = |value: f64| ml + share(value, left, right) * (WIDTH - ml - mr);
        let at_y = |value: f64| HEIGHT - mb - share(value, low, high) * (HEIGHT - mt - mb);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        // Writing to a String cannot fail.
        let mut text = |x: f64, y: f64, anchor: &str, what: &str| {
            let _ = writeln!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{what}</text>");
        };
        text(ml, 22.0, "start", &self.title);
        text((ml + WIDTH - mr) / 2.0, HEIGHT - 12.0, "middle", &self.x);
        text(8.0, mt - 6.0, "start", &self.y);
        for power in left..=right {
            text(at_x(10f64.powi(power)), HEIGHT - mb + 18.0, "middle", &number(power));
        }
        for power in low..=high {
            text(ml - 8.0, at_y(10f64.powi(power)) + 4.0, "end", &number(power));
        }
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let path: Vec<String> =
                line.points.iter().map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            for (x, y) in &line.points {
                let _ =
                    writeln!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", at_x(*x), at_y(*y));
            }
            if let Some((x, y)) = line.points.last() {
                let (x, y) = (at_x(*x) + 8.0, at_y(*y) + 4.0);
                let _ = writeln!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\" fill=\"{colour}\">{}</text>", line.name);
            }
        }
        for power in low..=high {
            let y = at_y(10f64.powi(power));
            let _ = writeln!(svg, "<path d=\"M{ml} {y:.1}H{}\" stroke=\"#888\" stroke-width=\"0.4\"/>", WIDTH - mr);
        }
        for power in left..=right {
            let x = at_x(10f64.powi(power));
            let _ = writeln!(svg, "<path d=\"M{x:.1} {mt}V{}\" stroke=\"#888\" stroke-width=\"0.4\"/>", HEIGHT - mb);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// A power of ten as people write it.
fn number(power: i32) -> String {
    match usize::try_from(power) {
        Ok(zeros) => format!("1{}", "0".repeat(zeros)),
        Err(_) => format!("{:.*}", usize::try_from(-power).unwrap_or_default(), 10f64.powi(power)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_between_the_axes_and_every_line_has_its_name() {
        let line = |name: &str, points: &[(f64, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
        let lines = vec![line("flat", &[(10.0, 0.1), (3000.0, 0.12)]), line("steep", &[(10.0, 0.2), (3000.0, 60.0)])];
        let svg = Plot { title: "t".into(), x: "x".into(), y: "y".into(), lines }.svg();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 4));
        assert!(svg.contains(">flat<") && svg.contains(">steep<") && svg.contains(">10000<") && svg.contains(">0.1<"));
        for circle in svg.split("cx=\"").skip(1) {
            let x: f64 = circle.split('"').next().unwrap().parse().unwrap();
            assert!((MARGIN[0]..=WIDTH - MARGIN[2]).contains(&x), "{x}");
        }
    }
}
