//! The report for people: one HTML file that needs nothing from anywhere else.

use super::compare::Comparison;
use super::outcome::{Outcome, Sample};
use super::plot::{Line, Plot, Scale, short};
use crate::hostile::Summary;
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// The report of one run.
pub(crate) fn single(outcome: &Outcome) -> String {
    let mut body = String::new();
    put_head(&mut body, outcome, &[&outcome.url]);
    put_cards(&mut body, outcome);
    put_plots(&mut body, &[(0, outcome)]);
    put_latencies(&mut body, &[("", outcome)]);
    put_errors(&mut body, &[outcome]);
    page(outcome.scenario, &body)
}

/// The report of an attack: each kind's figures, then its rounds.
pub(crate) fn hostile(rows: &[Summary]) -> String {
    let mut body = String::from(
        "<header><h1>hostile</h1></header><div class=\"scroll\"><table><tr><th>kind<th>what it does\
        <th class=\"c0\">p99 attacked, ms<th class=\"c1\">p99 calm, ms<th>ratio, median<th>cut off<th>lost<th>holds</tr>",
    );
    for row in rows {
        let p99 = row.ratio("latency_p99_us");
        let of = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let _ = write!(
            body,
            "<tr><td>{}<td>{}<td>{}<td>{}<td><b>{}</b><td>{}<td>{}<td>{}</tr>",
            escape(&row.kind),
            escape(&row.about),
            of(p99.map(|ratio| ratio.values.0 / 1e3)),
            of(p99.map(|ratio| ratio.values.1 / 1e3)),
            of(p99.map(|ratio| ratio.median)),
            row.cut_off,
            row.lost_messages,
            if row.holds { "yes" } else { "no" }
        );
    }
    body += "</table></div>";
    for row in rows {
        let _ = write!(body, "<h2>{}: {}</h2>", escape(&row.kind), escape(&row.about));
        put_comparison(&mut body, &row.comparison, ["attacked", "calm"]);
    }
    page("hostile", &body)
}

/// The report of two relays in turn.
pub(crate) fn comparison(result: &Comparison) -> String {
    let Some((first, _)) = result.rounds.last() else { return page("", "<p>No round was run.</p>") };
    let mut body = String::new();
    put_head(&mut body, first, &[&result.url, &result.compared_with]);
    body += "<h2>Ratios</h2><p class=\"note\">The first relay's figure by the second's, round by round.</p>";
    put_comparison(&mut body, result, ["first", "second"]);
    page(first.scenario, &body)
}

/// Ratios, curves and errors of two that were measured in turn.
fn put_comparison(body: &mut String, result: &Comparison, names: [&str; 2]) {
    let Some((first, other)) = result.rounds.last() else { return };
    let [one, two] = names;
    let _ = write!(
        body,
        "<div class=\"scroll\"><table><tr><th>figure<th class=\"c0\">{one}<th class=\"c1\">{two}<th>ratio, median<th>each round</tr>"
    );
    for (name, ratio) in &result.ratio {
        let each: Vec<_> = ratio.each.iter().map(|value| format!("{value:.3}")).collect();
        let (one, two) = (short(ratio.values.0), short(ratio.values.1));
        let _ = write!(
            body,
            "<tr><td>{}<td>{one}<td>{two}<td><b>{:.3}</b><td class=\"each\">{}</tr>",
            words(name),
            ratio.median,
            each.join(" ")
        );
    }
    body.push_str("</table></div>");
    let runs: Vec<_> = result.rounds.iter().flat_map(|(one, two)| [(0, one), (1, two)]).collect();
    put_plots(body, &runs);
    let whose = names.map(|name| format!("{name}, last round: "));
    put_latencies(body, &[(&whose[0], first), (&whose[1], other)]);
    put_errors(body, &runs.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>());
}

fn page(scenario: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{scenario}: coralmux-loadtest</title><style>{STYLE}</style><main>{body}</main></html>\n"
    )
}

fn put_head(body: &mut String, outcome: &Outcome, urls: &[&String]) {
    let _ = write!(body, "<header><h1>{}</h1><p class=\"urls\">", outcome.scenario);
    for (class, url) in urls.iter().enumerate() {
        let _ = write!(body, "<span class=\"key c{class}\"></span>{} ", escape(url));
    }
    body.push_str("</p><p class=\"settings\">");
    for (name, value) in &outcome.settings {
        let _ = write!(body, "<span>{} <b>{}</b></span> ", words(name), escape(&value.to_string()));
    }
    body.push_str("</p></header>");
    let others = outcome.usage.others_cores;
    if others > 0.1 {
        let _ = write!(
            body,
            "<p class=\"warning\">Others used {others:.2} cores of this machine meanwhile: times here are longer than they would be alone.</p>"
        );
    }
}

fn put_cards(body: &mut String, outcome: &Outcome) {
    body.push_str("<section class=\"cards\">");
    for (name, value) in &outcome.figures {
        let _ = write!(body, "<div><b>{}</b>{}</div>", short(*value), words(name));
    }
    body.push_str("</section>");
}

fn put_plots(body: &mut String, runs: &[(usize, &Outcome)]) {
    body.push_str("<section class=\"plots\">");
    let mut put = |title: String, plot: Plot<'_>| {
        let svg = plot.svg();
        if !svg.is_empty() {
            let _ = write!(body, "<figure><figcaption>{title}</figcaption>{svg}</figure>");
        }
    };
    let names = runs.first().map(|(_, outcome)| outcome.latency_us.keys().copied().collect::<Vec<_>>());
    for name in names.unwrap_or_default() {
        let curve = |outcome: &Outcome| outcome.latency_us.get(name).map(|latency| latency.curve.clone());
        let lines = runs.iter().filter_map(|(class, outcome)| Some(Line { class: *class, points: curve(outcome)? }));
        put(
            format!("Latency: {name}"),
            Plot { x: ("percentile", Scale::Nines), y: ("µs", Scale::Log), lines: lines.collect() },
        );
    }
    let mut over_time = |title: String, unit: &str, of: &dyn Fn(&Sample) -> Option<f64>| {
        let lines = runs.iter().map(|(class, outcome)| {
            let points = outcome.series.iter().filter_map(|sample| Some((sample.at, of(sample)?)));
            Line { class: *class, points: points.collect() }
        });
        put(title, Plot { x: ("seconds", Scale::Linear), y: (unit, Scale::Linear), lines: lines.collect() });
    };
    let counted = runs.first().map_or("", |(_, outcome)| outcome.counted);
    over_time("Throughput".to_owned(), &format!("{counted} a second"), &|sample| Some(sample.per_second));
    over_time("Memory of the relay".to_owned(), "MiB resident", &|s| s.rss_bytes.map(|bytes| bytes as f64 / 1048576.0));
    over_time("CPU of the relay".to_owned(), "cores", &|sample| sample.server_cores);
    over_time("CPU of the generator".to_owned(), "cores", &|sample| Some(sample.generator_cores));
    body.push_str("</section>");
}

fn put_latencies(body: &mut String, runs: &[(&str, &Outcome)]) {
    body.push_str(
        "<h2>Latency, µs</h2><div class=\"scroll\"><table><tr><th><th>count<th>mean<th>p50<th>p90<th>p99<th>p99.9<th>p99.99<th>max</tr>",
    );
    for (whose, outcome) in runs {
        for (name, latency) in &outcome.latency_us {
            let p = &latency.percentiles;
            let _ = write!(body, "<tr><td>{whose}{name}<td>{}", p.count);
            for value in [p.mean, p.p50, p.p90, p.p99, p.p99_9, p.p99_99, p.max] {
                let _ = write!(body, "<td>{value:.1}");
            }
            body.push_str("</tr>");
        }
    }
    body.push_str("</table></div>");
}

fn put_errors(body: &mut String, outcomes: &[&Outcome]) {
    let errors: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.errors).collect();
    if errors.is_empty() {
        body.push_str("<p class=\"note\">No message was refused and no connection was lost.</p>");
        return;
    }
    body.push_str("<h2>Errors</h2><table><tr><th>what<th>how often</tr>");
    for (what, count) in errors {
        let _ = write!(body, "<tr><td>{}<td>{count}</tr>", escape(what));
    }
    body.push_str("</table>");
}

/// `server_cpu_us_per_message` for people.
fn words(name: &str) -> String {
    let unit = |word: &str| match word {
        "us" => "µs".to_owned(),
        "cpu" | "rss" => word.to_uppercase(),
        _ => word.to_owned(),
    };
    escape(&name.split('_').map(unit).collect::<Vec<_>>().join(" "))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_says_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
        assert_eq!(words("server_cpu_us_per_message"), "server CPU µs per message");
    }
}
