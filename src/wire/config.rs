//! The settings in force and where each came from: `GET /lovable/v1/config`.

use serde::{Deserialize, Serialize};

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The configuration file, whether it exists or not.
    pub path: Option<String>,
    /// The settings, in the order in which they are described. No key is among them.
    pub settings: Vec<Setting>,
}

/// One setting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name as in the file: `patience.connect`.
    pub key: String,
    /// Its value as the file would write it.
    pub value: serde_json::Value,
    /// Where it came from.
    pub source: SettingSource,
    /// The flag or variable that set it, where one did.
    pub by: Option<String>,
}

/// Where a setting came from, strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingSource {
    /// The command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// Nobody set it.
    Default,
}
