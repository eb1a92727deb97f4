//! How much of the machine is in use: now, and while requests ran. What the system does not
//! show is `null`.

use serde::{Deserialize, Serialize};

use crate::{
    generate::{Load, Reading},
    hardware::{Gpu, Hardware},
};

/// How much of the machine is in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HardwareView {
    /// How many processors there are.
    pub processors: Option<u32>,
    /// How much of all of them was used in the last second or so.
    pub processor_percent: Option<f64>,
    /// The memory of the machine.
    pub memory_total_bytes: Option<u64>,
    /// What of it is taken.
    pub memory_used_bytes: Option<u64>,
    /// Its GPUs.
    pub gpus: Vec<GpuView>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuView {
    /// Its name.
    pub name: String,
    /// Its maker: `nvidia` or `amd`.
    pub vendor: String,
    /// How much of the time it was working.
    pub busy_percent: Option<f64>,
    /// Its own memory.
    pub memory_total_bytes: Option<u64>,
    /// What of it is taken.
    pub memory_used_bytes: Option<u64>,
    /// How hot it is.
    pub temperature_celsius: Option<f64>,
    /// What it draws.
    pub power_watts: Option<f64>,
}

impl From<&Hardware> for HardwareView {
    fn from(it: &Hardware) -> Self {
        let gpu = |it: &Gpu| GpuView {
            name: it.name.clone(),
            vendor: it.vendor.to_owned(),
            busy_percent: it.busy_percent,
            memory_total_bytes: it.memory_total_bytes,
            memory_used_bytes: it.memory_used_bytes,
            temperature_celsius: it.temperature_celsius,
            power_watts: it.power_watts,
        };
        Self {
            processors: it.processors,
            processor_percent: it.processor_percent,
            memory_total_bytes: it.memory_total_bytes,
            memory_used_bytes: it.memory_used_bytes,
            gpus: it.gpus.iter().map(gpu).collect(),
        }
    }
}

/// How busy the machine was while a request ran, or while many did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadView {
    /// When it began; of many, the mean of that.
    pub start: ReadingView,
    /// The most meanwhile.
    pub peak: ReadingView,
}

/// How much of the machine was in use. Of several GPUs the busiest and the hottest, and the
/// memory and power of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReadingView {
    /// Of all processors.
    pub processor_percent: Option<f64>,
    /// Memory that is taken.
    pub memory_used_bytes: Option<u64>,
    /// Of the GPU's time.
    pub gpu_percent: Option<f64>,
    /// Memory of the GPU that is taken.
    pub gpu_memory_used_bytes: Option<u64>,
    /// How hot it is.
    pub gpu_temperature_celsius: Option<f64>,
    /// What it draws.
    pub gpu_power_watts: Option<f64>,
}

impl From<Load> for LoadView {
    fn from(it: Load) -> Self {
        Self { start: it.start.into(), peak: it.peak.into() }
    }
}

impl From<Reading> for ReadingView {
    fn from(it: Reading) -> Self {
        let tenths = |it: Option<u64>| it.map(|it| it as f64 / 10.0);
        Self {
            processor_percent: tenths(it.processor),
            memory_used_bytes: it.memory,
            gpu_percent: tenths(it.gpu),
            gpu_memory_used_bytes: it.gpu_memory,
            gpu_temperature_celsius: tenths(it.temperature),
            gpu_power_watts: tenths(it.power),
        }
    }
}
