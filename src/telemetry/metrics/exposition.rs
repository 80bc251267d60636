//! One scrape: figures are put into an exposition, which is written out as text.
//!
//! Counters and gauges go through the `metrics` recorder of the Prometheus exporter. It takes a histogram one
//! observation at a time and keeps each of them until it is scraped, which would cost more than forwarding the message;
//! and its counters are whole numbers. So histograms, which the shards have counted already, and CPU seconds are written
//! here, in the same text format (Prometheus, exposition formats, version 0.0.4).

use super::{ALL, Histogram, Kind, Metric};
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use std::fmt::Write;

/// A label and its value. Values are chosen by the program, never by a peer.
type Labels<'a> = [(&'static str, &'a str)];

/// The figures of one scrape. Each scrape has a new one, so that what is gone is not shown any more.
pub struct Exposition {
    recorder: PrometheusRecorder,
    /// What is written here, metric by metric, with its lines.
    own: Vec<(Metric, String)>,
}

impl Default for Exposition {
    fn default() -> Self {
        Self::new()
    }
}

impl Exposition {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in ALL {
            match metric.kind {
                Kind::Counter => recorder.describe_counter(metric.name.into(), None, metric.help.into()),
                Kind::Gauge => recorder.describe_gauge(metric.name.into(), None, metric.help.into()),
                Kind::Histogram => {}
            }
        }
        Self { recorder, own: Vec::new() }
    }

    /// A whole count.
    pub fn count(&mut self, metric: Metric, labels: &Labels<'_>, value: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.recorder.register_counter(&key(metric, labels), &METADATA).absolute(value);
    }

    /// A count of seconds.
    pub fn count_seconds(&mut self, metric: Metric, labels: &Labels<'_>, seconds: f64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        let lines = self.lines_of(metric);
        write_line(lines, metric.name, "", labels, None, seconds);
    }

    /// A value.
    pub fn gauge(&mut self, metric: Metric, labels: &Labels<'_>, value: f64) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.recorder.register_gauge(&key(metric, labels), &METADATA).set(value);
    }

    /// A histogram.
    pub fn histogram(&mut self, metric: Metric, labels: &Labels<'_>, histogram: &Histogram) {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        let lines = self.lines_of(metric);
        for (bound, count) in histogram.buckets() {
            write_line(lines, metric.name, "_bucket", labels, Some(&bound.to_string()), count as f64);
        }
        let count = histogram.count() as f64;
        write_line(lines, metric.name, "_bucket", labels, Some("+Inf"), count);
        write_line(lines, metric.name, "_sum", labels, None, histogram.sum_seconds());
        write_line(lines, metric.name, "_count", labels, None, count);
    }

    /// The text.
    #[must_use]
    pub fn render(self) -> String {
        let mut text = self.recorder.handle().render();
        for (Metric { name, kind, help }, lines) in self.own {
            // Writing to a String cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {}\n{lines}\n", kind.name());
        }
        text
    }

    fn lines_of(&mut self, metric: Metric) -> &mut String {
        let at = self.own.iter().position(|(own, _)| own.name == metric.name).unwrap_or_else(|| {
            self.own.push((metric, String::new()));
            self.own.len() - 1
        });
        &mut self.own[at].1
    }
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(metric: Metric, labels: &Labels<'_>) -> Key {
    let labels: Vec<Label> = labels.iter().map(|&(name, value)| Label::new(name, value.to_owned())).collect();
    Key::from_parts(metric.name, labels)
}

fn write_line(text: &mut String, name: &str, suffix: &str, labels: &Labels<'_>, bound: Option<&str>, value: f64) {
    let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
    let list: Vec<String> = all.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    let list = if list.is_empty() { String::new() } else { format!("{{{}}}", list.join(",")) };
    let _ = writeln!(text, "{name}{suffix}{list} {value}");
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{BUILD_INFO, FORWARD_SECONDS, MESSAGES, SHARD_CPU};
    use std::time::Duration;

    #[test]
    fn a_sheet_is_prometheus_text() {
        let mut exposition = Exposition::new();
        exposition.count(MESSAGES, &[("direction", "phone_to_agent"), ("outcome", "forwarded")], 7);
        exposition.gauge(BUILD_INFO, &[("version", "1.0\"\\")], 1.0);
        exposition.count_seconds(SHARD_CPU, &[("shard", "0")], 1.25);
        exposition.count_seconds(SHARD_CPU, &[("shard", "1")], 0.5);
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_micros(30), 4);
        exposition.histogram(FORWARD_SECONDS, &[("shard", "0")], &histogram);
        let text = exposition.render();
        for line in [
            "# TYPE coralmux_messages_total counter",
            "coralmux_messages_total{direction=\"phone_to_agent\",outcome=\"forwarded\"} 7",
            "coralmux_build_info{version=\"1.0\\\"\\\\\"} 1",
            "# TYPE coralmux_shard_cpu_seconds_total counter",
            "coralmux_shard_cpu_seconds_total{shard=\"0\"} 1.25",
            "coralmux_shard_cpu_seconds_total{shard=\"1\"} 0.5",
            "# TYPE coralmux_forward_seconds histogram",
            "coralmux_forward_seconds_bucket{shard=\"0\",le=\"0.000025\"} 0",
            "coralmux_forward_seconds_bucket{shard=\"0\",le=\"0.00005\"} 4",
            "coralmux_forward_seconds_bucket{shard=\"0\",le=\"+Inf\"} 4",
            "coralmux_forward_seconds_sum{shard=\"0\"} 0.00012",
            "coralmux_forward_seconds_count{shard=\"0\"} 4",
        ] {
            assert!(text.lines().any(|got| got == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE coralmux_shard_cpu_seconds_total").count(), 1);
        assert!(text.contains("# HELP coralmux_messages_total Messages by direction"), "{text}");
    }
}
