//! NVIDIA's GPUs, as its management library (NVML) tells of them. The library comes with the
//! driver and is loaded when it is there.

use nvml_wrapper::{Device, Nvml, enum_wrappers::device::TemperatureSensor};

use super::Gpu;

/// The library, loaded.
pub(super) struct Driver(Nvml);

impl Driver {
    /// `None` where there is no such driver.
    pub(super) fn open() -> Option<Self> {
        Nvml::init().ok().map(Self)
    }

    pub(super) fn read(&self) -> Vec<Gpu> {
        let count = self.0.device_count().unwrap_or(0);
        (0..count).filter_map(|at| self.0.device_by_index(at).ok()).map(|it| read(&it)).collect()
    }
}

/// Cards differ in what they tell; each value is asked for by itself.
fn read(device: &Device<'_>) -> Gpu {
    let memory = device.memory_info().ok();
    Gpu {
        name: device.name().unwrap_or_else(|_| "NVIDIA".to_owned()),
        vendor: "nvidia",
        busy_percent: device.utilization_rates().ok().map(|it| f64::from(it.gpu)),
        memory_total_bytes: memory.as_ref().map(|it| it.total),
        memory_used_bytes: memory.as_ref().map(|it| it.used),
        temperature_celsius: device.temperature(TemperatureSensor::Gpu).ok().map(f64::from),
        // It tells milliwatts.
        power_watts: device.power_usage().ok().map(|it| f64::from(it) / 1e3),
    }
}
