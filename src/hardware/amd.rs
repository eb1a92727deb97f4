//! AMD's GPUs, as the kernel's driver `amdgpu` shows them in files (kernel documentation,
//! "GPU Power/Thermal Controls and Monitoring" and "AMDGPU Driver Information").

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::Gpu;

/// AMD's number among the makers of PCI devices.
const AMD: &str = "0x1002";

pub(super) fn read(cards: &Path) -> Vec<Gpu> {
    let Ok(entries) = fs::read_dir(cards) else { return Vec::new() };
    let mut devices: Vec<PathBuf> = entries
        .flatten()
        // Beside `card0` there are its outputs, `card0-DP-1`.
        .filter(|it| it.file_name().to_str().is_some_and(is_card))
        .map(|it| it.path().join("device"))
        .filter(|it| text(&it.join("vendor")).as_deref() == Some(AMD))
        .collect();
    devices.sort();
    devices.iter().map(|it| read_one(it)).collect()
}

fn is_card(name: &str) -> bool {
    name.strip_prefix("card").is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
}

fn read_one(device: &Path) -> Gpu {
    let sensors =
        fs::read_dir(device.join("hwmon")).ok().and_then(|mut it| it.next()?.ok()).map(|it| it.path());
    let sensor = |name: &str| number::<f64>(&sensors.as_ref()?.join(name));
    Gpu {
        name: text(&device.join("product_name"))
            .filter(|it| !it.is_empty())
            .unwrap_or_else(|| "AMD".to_owned()),
        vendor: "amd",
        busy_percent: number(&device.join("gpu_busy_percent")),
        memory_total_bytes: number(&device.join("mem_info_vram_total")),
        memory_used_bytes: number(&device.join("mem_info_vram_used")),
        // Thousandths of a degree, and millionths of a watt.
        temperature_celsius: sensor("temp1_input").map(|it| it / 1e3),
        power_watts: sensor("power1_average").or_else(|| sensor("power1_input")).map(|it| it / 1e6),
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|it| it.trim().to_owned())
}

fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn a_card_is_read_with_what_it_shows() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("card1/device/vendor", "0x1002"),
                ("card1/device/product_name", "Radeon PRO W7900"),
                ("card1/device/gpu_busy_percent", "37"),
                ("card1/device/mem_info_vram_total", "48301604864"),
                ("card1/device/mem_info_vram_used", "1073741824"),
                ("card1/device/hwmon/hwmon4/temp1_input", "61500"),
                ("card1/device/hwmon/hwmon4/power1_average", "93000000"),
                // Shows little, and that wrongly.
                ("card2/device/vendor", "0x1002"),
                ("card2/device/gpu_busy_percent", "?"),
                // Somebody else's, and no card at all.
                ("card0/device/vendor", "0x8086"),
                ("card1-DP-1/device/vendor", "0x1002"),
                ("renderD128/device/vendor", "0x1002"),
            ],
        );
        let expected = Gpu {
            name: "Radeon PRO W7900".to_owned(),
            vendor: "amd",
            busy_percent: Some(37.0),
            memory_total_bytes: Some(48_301_604_864),
            memory_used_bytes: Some(1_073_741_824),
            temperature_celsius: Some(61.5),
            power_watts: Some(93.0),
        };
        let bare = Gpu { name: "AMD".to_owned(), vendor: "amd", ..Gpu::default() };
        assert_eq!(read(root.path()), [expected, bare]);
    }

    #[test]
    fn no_card_is_no_gpu() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), []);
        assert_eq!(read(&root.path().join("nothing")), []);
    }
}
