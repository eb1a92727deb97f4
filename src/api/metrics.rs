//! What monitoring systems are told: `GET /metrics`, as Prometheus reads it, and the same
//! numbers for whoever sends them elsewhere.

use hyper::{
    Response,
    header::{CONTENT_TYPE, HeaderValue},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text},
    metrics::MetricType,
    registry::{Registry, Unit as Suffix},
};

use super::{Door, Knock, control};
use crate::{
    fault::Failure,
    hardware::Hardware,
    metrics::{Buckets, Family, Labels, Point, Points, Unit, provider},
    registry::{Admission, Server, Standing},
    relay::{Body, full},
    wire::Status,
};

pub(super) async fn metrics(knock: Knock) -> Response<Body> {
    // Whoever looks wants to see the machine as well.
    knock.door.house.hardware_at_work().await;
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(knock.door.metrics())));
    let mut text = String::new();
    if let Err(error) = prometheus_text::encode(&mut text, &registry) {
        tracing::error!(%error, "metrics cannot be written");
        return knock.refuse(&Failure::Internal);
    }
    let mut response = Response::new(full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(prometheus_text::CONTENT_TYPE));
    response
}

impl Door {
    /// All metrics as they are now; of the machine what is known anyway.
    pub(crate) fn metrics(&self) -> Vec<Family> {
        let mut families = self.house.counted();
        families.extend(here(&control::status_of(self)));
        let snapshot = self.house.snapshot();
        families.push(Family::gauges(
            "lovable.server.up",
            Unit::Things,
            "Whether requests can be sent to a server",
            snapshot.servers.iter().map(|it| (labels(it), f64::from(u8::from(is_up(it))))),
        ));
        let traffic = self.house.traffic().look();
        families.push(Family::gauges(
            "lovable.server.requests.in_flight",
            Unit::Things,
            "Requests that a server works on for us",
            snapshot.servers.iter().map(|it| (labels(it), f64::from(traffic.of(&it.id)))),
        ));
        if let Some(told) = self.house.told() {
            families.push(Family::sums(
                "lovable.otlp.dropped",
                Unit::Things,
                "Requests that the collector of traces will never hear of",
                [(Labels::new(), told.dropped as f64)],
            ));
        }
        if let Some(hardware) = self.house.hardware_seen() {
            families.extend(machine(&hardware));
        }
        families
    }
}

fn is_up(server: &Server) -> bool {
    server.admission == Admission::Open && server.standing == Standing::Up && server.problem.is_none()
}

fn labels(server: &Server) -> Labels {
    vec![
        ("lovable.server", server.id.to_string()),
        ("gen_ai.provider.name", provider(&server.kind).to_owned()),
        ("lovable.zone", server.zone.as_str().to_owned()),
    ]
}

/// How the daemon is, from what `status` says.
fn here(it: &Status) -> Vec<Family> {
    let things = |name, help, value: f64| Family::gauge(name, Unit::Things, help, value);
    let standings = [
        ("up", it.servers.up),
        ("suspect", it.servers.suspect),
        ("down", it.servers.down),
        ("untrusted", it.servers.untrusted),
        ("draining", it.servers.draining),
    ];
    let mut families = vec![
        Family::gauges(
            "lovable.build.info",
            Unit::Things,
            "Always 1; the version is in its label",
            [(vec![("lovable.version", it.version.clone())], 1.0)],
        ),
        Family::gauge("lovable.uptime", Unit::Seconds, "Time since the start", it.uptime_seconds as f64),
        things("lovable.ready", "Whether some server is usable", f64::from(u8::from(it.ready))),
        Family::gauges(
            "lovable.servers",
            Unit::Things,
            "Servers, by their standing",
            standings.map(|(name, count)| (vec![("lovable.standing", name.to_owned())], f64::from(count))),
        ),
        things("lovable.models.available", "Models that can be asked for", it.models.available.into()),
        things("lovable.models.loaded", "Models that are in memory somewhere", it.models.loaded.into()),
        things(
            "lovable.requests.in_flight",
            "Requests that are being answered",
            it.requests.in_flight as f64,
        ),
        things("lovable.requests.queued", "Requests that wait for a server", it.requests.queued as f64),
        things("lovable.store.ok", "Whether what is stored lasts", f64::from(u8::from(it.store.ok))),
        Family::sums(
            "lovable.ledger.dropped",
            Unit::Things,
            "Records that could not be written down",
            [(Labels::new(), it.store.dropped as f64)],
        ),
    ];
    if let Some(bytes) = it.store.bytes {
        families.push(Family::gauge(
            "lovable.store.size",
            Unit::Bytes,
            "What the store takes on the disk",
            bytes as f64,
        ));
    }
    if let Some(cloud) = &it.cloud {
        families.push(Family::gauge(
            "lovable.cloud.spent_today",
            Unit::Usd,
            "What counts as spent in the cloud since midnight UTC",
            cloud.spent_today_usd,
        ));
    }
    families
}

/// How busy the machine is, as far as it shows.
fn machine(it: &Hardware) -> Vec<Family> {
    let one = |name, unit, help, value: Option<f64>| {
        Family::gauges(name, unit, help, value.map(|it| (Labels::new(), it)))
    };
    let gpus = |name, unit, help, of: fn(&crate::hardware::Gpu) -> Option<f64>| {
        let shown = it.gpus.iter().enumerate().filter_map(|(at, gpu)| {
            let labels = vec![("lovable.gpu", at.to_string()), ("lovable.gpu.name", gpu.name.clone())];
            Some((labels, of(gpu)?))
        });
        Family::gauges(name, unit, help, shown)
    };
    let bytes = |it: Option<u64>| it.map(|it| it as f64);
    vec![
        one(
            "lovable.processor.usage",
            Unit::Ratio,
            "How much of all processors is used",
            it.processor_percent.map(|it| it / 100.0),
        ),
        one("lovable.memory.used", Unit::Bytes, "Memory that is taken", bytes(it.memory_used_bytes)),
        one("lovable.memory.total", Unit::Bytes, "Memory of the machine", bytes(it.memory_total_bytes)),
        gpus("lovable.gpu.usage", Unit::Ratio, "How much of the time a GPU works", |it| {
            it.busy_percent.map(|it| it / 100.0)
        }),
        gpus("lovable.gpu.memory.used", Unit::Bytes, "Memory of a GPU that is taken", |it| {
            it.memory_used_bytes.map(|it| it as f64)
        }),
        gpus("lovable.gpu.memory.total", Unit::Bytes, "Memory of a GPU", |it| {
            it.memory_total_bytes.map(|it| it as f64)
        }),
        gpus("lovable.gpu.temperature", Unit::Celsius, "How hot a GPU is", |it| it.temperature_celsius),
        gpus("lovable.gpu.power", Unit::Watts, "What a GPU draws", |it| it.power_watts),
    ]
}

/// Families, as the library for Prometheus takes them.
#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in self.0.iter().filter(|it| !it.is_empty()) {
            let name = family.name.replace('.', "_");
            let unit = suffix(family.unit);
            let sort = match &family.points {
                Points::Sum(_) => MetricType::Counter,
                Points::Gauge(_) => MetricType::Gauge,
                Points::Histogram(_) => MetricType::Histogram,
            };
            let mut encoder = encoder.encode_descriptor(&name, family.help, unit.as_ref(), sort)?;
            match &family.points {
                Points::Sum(all) => each(&mut encoder, all, |encoder, it| {
                    encoder.encode_counter::<NoLabelSet, f64, f64>(it, None)
                })?,
                Points::Gauge(all) => each(&mut encoder, all, |encoder, it| encoder.encode_gauge(it))?,
                Points::Histogram(all) => each(&mut encoder, all, histogram)?,
            }
        }
        Ok(())
    }
}

fn each<T>(
    encoder: &mut MetricEncoder<'_>,
    points: &[Point<T>],
    write: impl Fn(&mut MetricEncoder<'_>, &T) -> Result<(), std::fmt::Error>,
) -> Result<(), std::fmt::Error> {
    points.iter().try_for_each(|point| {
        let labels: Vec<(String, &str)> =
            point.labels.iter().map(|(name, value)| (name.replace('.', "_"), value.as_str())).collect();
        match labels.is_empty() {
            true => write(encoder, &point.value),
            false => write(&mut encoder.encode_family(&labels)?, &point.value),
        }
    })
}

fn histogram(encoder: &mut MetricEncoder<'_>, it: &Buckets) -> Result<(), std::fmt::Error> {
    let bounds = it.bounds().iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(it.counts().iter().copied()).collect();
    encoder.encode_histogram::<NoLabelSet>(it.sum(), it.count(), &buckets, None)
}

/// What Prometheus wants at the end of a name.
fn suffix(unit: Unit) -> Option<Suffix> {
    Some(match unit {
        Unit::Things | Unit::Tokens => return None,
        Unit::Ratio => Suffix::Other("ratio".to_owned()),
        Unit::Seconds => Suffix::Seconds,
        Unit::Bytes => Suffix::Bytes,
        Unit::Celsius => Suffix::Celsius,
        Unit::Watts => Suffix::Other("watts".to_owned()),
        Unit::Usd => Suffix::Other("usd".to_owned()),
    })
}
