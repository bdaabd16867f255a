//! Bars, as SVG.

/// A group of bars.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) bars: Vec<(String, f64)>,
}

/// Horizontal bars, chart below chart.
pub(super) fn svg(charts: &[Chart]) -> String {
    const WIDTH: f64 = 760.0;
    const LABELS: f64 = 300.0;
    const LINE: f64 = 22.0;
    let mut body = String::new();
    let mut y = 0.0;
    for chart in charts {
        y += 1.5 * LINE;
        body += &format!(
            "<text x=\"0\" y=\"{y}\" font-weight=\"bold\">{}</text>\n",
            chart.title
        );
        let most = chart.bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
        for (label, value) in &chart.bars {
            y += LINE;
            // Room for the number behind the longest bar.
            let length = (WIDTH - LABELS - 80.0) * (value / most).max(0.0);
            body += &format!(
                "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{label}</text>\
                 <rect x=\"{LABELS}\" y=\"{}\" width=\"{length:.1}\" height=\"14\" \
                 fill=\"#3b6ea5\"/>\
                 <text x=\"{:.1}\" y=\"{y}\">{value:.1} {}</text>\n",
                LABELS - 8.0,
                y - 12.0,
                LABELS + length + 6.0,
                chart.unit
            );
        }
    }
    let height = y + LINE;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"-10 0 {} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect x=\"-10\" width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n",
        WIDTH + 20.0
    )
}
