//! How much of this machine is in use: processor, memory, and GPUs where the system shows them.
//!
//! What is not shown is absent, and never zero. Reading may take some milliseconds, where a
//! driver is asked; when that is worth it is not known here.

mod amd;
mod nvidia;

use std::path::PathBuf;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::generate::Reading;

/// What was seen at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hardware {
    /// How many processors there are, as the system counts them.
    pub processors: Option<u32>,
    /// How much of them was used since the last look, in percent of all.
    pub processor_percent: Option<f64>,
    /// The memory of the machine, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// What of it is not available to whoever wants more, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Its GPUs, in the order of their drivers.
    pub gpus: Vec<Gpu>,
}

/// One GPU.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gpu {
    /// What its driver calls it.
    pub name: String,
    /// Who made it: `nvidia` or `amd`.
    pub vendor: &'static str,
    /// How much of the time it was working, in percent.
    pub busy_percent: Option<f64>,
    /// Its own memory, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// What of it is taken, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// In degrees Celsius.
    pub temperature_celsius: Option<f64>,
    /// What it draws, in watts.
    pub power_watts: Option<f64>,
}

impl Hardware {
    /// The same in few numbers, for what is written down.
    pub fn reading(&self) -> Reading {
        let tenths = |it: f64| (it.is_finite() && it >= 0.0).then(|| (it * 10.0).round() as u64);
        let gpus = |of: fn(&Gpu) -> Option<f64>| self.gpus.iter().filter_map(of);
        let most = |of| gpus(of).reduce(f64::max).and_then(tenths);
        let memory = self.gpus.iter().filter_map(|it| it.memory_used_bytes);
        Reading {
            processor: self.processor_percent.and_then(tenths),
            memory: self.memory_used_bytes,
            gpu: most(|it| it.busy_percent),
            gpu_memory: memory.reduce(u64::saturating_add),
            temperature: most(|it| it.temperature_celsius),
            power: gpus(|it| it.power_watts).reduce(|one, other| one + other).and_then(tenths),
        }
    }
}

/// Looks at the machine. It keeps what the next look is compared with.
pub struct Gauge {
    system: Option<System>,
    compared: bool,
    nvidia: Option<nvidia::Driver>,
    /// Where the kernel shows its graphics cards.
    cards: PathBuf,
}

impl Default for Gauge {
    fn default() -> Self {
        Self::new()
    }
}

impl Gauge {
    /// Finds out what there is to look at. A driver that is not there is not looked for again.
    pub fn new() -> Self {
        let what = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing().with_usage())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        Self {
            system: System::new_with_specifics(what).ok(),
            compared: false,
            nvidia: nvidia::Driver::open(),
            cards: PathBuf::from("/sys/class/drm"),
        }
    }

    /// What is used now. The processors' use is that since the last look, and absent at the
    /// first one.
    pub fn read(&mut self) -> Hardware {
        let mut seen = self.system.as_mut().map(|it| read(it, self.compared)).unwrap_or_default();
        self.compared = true;
        seen.gpus = self.nvidia.as_ref().map(nvidia::Driver::read).unwrap_or_default();
        seen.gpus.extend(amd::read(&self.cards));
        seen
    }
}

fn read(system: &mut System, compared: bool) -> Hardware {
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.refresh_cpu_usage();
    let percent = f64::from(system.global_cpu_usage());
    let total = Some(system.total_memory()).filter(|it| *it > 0);
    Hardware {
        processors: u32::try_from(system.cpus().len()).ok().filter(|it| *it > 0),
        processor_percent: Some(percent).filter(|it| compared && it.is_finite()),
        memory_total_bytes: total,
        memory_used_bytes: total.map(|it| it.saturating_sub(system.available_memory())),
        gpus: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_gpu_shows_is_absent_and_not_zero() {
        let gpu = |busy, memory, power| Gpu {
            busy_percent: busy,
            memory_used_bytes: memory,
            power_watts: power,
            ..Gpu::default()
        };
        let gpus = vec![
            gpu(Some(12.34), Some(1), None),
            gpu(Some(80.0), None, Some(70.5)),
            gpu(None, Some(2), Some(9.5)),
        ];
        let seen = Hardware { processor_percent: Some(0.0), gpus, ..Hardware::default() };
        let expected = Reading {
            processor: Some(0),
            gpu: Some(800),
            gpu_memory: Some(3),
            power: Some(800),
            ..Reading::default()
        };
        assert_eq!(seen.reading(), expected);
        assert_eq!(Hardware::default().reading(), Reading::default());
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let mut gauge = Gauge::new();
        let first = gauge.read();
        assert!(first.processors.is_some_and(|it| it > 0), "{first:?}");
        assert_eq!(first.processor_percent, None, "there is nothing to compare with");
        let (total, used) = (first.memory_total_bytes.unwrap(), first.memory_used_bytes.unwrap());
        assert!(0 < used && used < total, "{used} of {total}");
        let second = gauge.read();
        assert!(second.processor_percent.is_some_and(|it| (0.0..=100.0).contains(&it)), "{second:?}");
    }
}
