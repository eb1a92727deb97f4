//! Families of numbers as OTLP's metrics.

use super::message::{
    CUMULATIVE, Data, Gauge, Histogram, HistogramPoint, KeyValue, Metric, MetricsRequest, NumberPoint,
    ResourceMetrics, ScopeMetrics, Sum, attribute, resource, scope,
};
use crate::metrics::{Family, Labels, Point, Points, Unit};

/// From when on the numbers are, and when they were read, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// All families as one message.
pub(super) fn request(families: Vec<Family>, instance: &str, span: Span) -> MetricsRequest {
    let some = families.into_iter().filter(|it| !it.is_empty());
    let metrics = some.map(|it| metric(it, span)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics }];
    MetricsRequest { resource_metrics: vec![ResourceMetrics { resource: resource(instance), scope_metrics }] }
}

fn metric(family: Family, span: Span) -> Metric {
    let numbers = |points: Vec<Point<f64>>| {
        let number = |it: Point<f64>| NumberPoint {
            start_time_unix_nano: span.from,
            time_unix_nano: span.to,
            as_double: Some(it.value),
            attributes: attributes(it.labels),
        };
        points.into_iter().map(number).collect()
    };
    let data = match family.points {
        Points::Gauge(points) => Data::Gauge(Gauge { data_points: numbers(points) }),
        Points::Sum(points) => Data::Sum(Sum {
            data_points: numbers(points),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Points::Histogram(points) => {
            let spread = |it: Point<crate::metrics::Buckets>| HistogramPoint {
                start_time_unix_nano: span.from,
                time_unix_nano: span.to,
                count: it.value.count(),
                sum: Some(it.value.sum()),
                bucket_counts: it.value.counts().to_vec(),
                explicit_bounds: it.value.bounds().to_vec(),
                attributes: attributes(it.labels),
            };
            let data_points = points.into_iter().map(spread).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality: CUMULATIVE })
        }
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(family.unit).to_owned(),
        data: Some(data),
    }
}

fn attributes(labels: Labels) -> Vec<KeyValue> {
    labels.into_iter().map(|(name, value)| attribute(name, &*value)).collect()
}

/// Units as OpenTelemetry writes them (UCUM).
fn unit(it: Unit) -> &'static str {
    match it {
        Unit::Things => "{thing}",
        Unit::Tokens => "{token}",
        Unit::Ratio => "1",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        Unit::Celsius => "Cel",
        Unit::Watts => "W",
        Unit::Usd => "{USD}",
    }
}
