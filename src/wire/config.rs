//! The settings in force and where each came from: `GET /lovable/v1/config`.

use serde::{Deserialize, Serialize};

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The configuration file, if there is one.
    pub file: Option<String>,
    /// What looks like a mistake but stops nothing.
    pub warnings: Vec<String>,
    /// The settings, in the order in which they are described. No secret is among them.
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
    pub from: SettingSource,
    /// The flag, the variable, or file and line; `null` for a default.
    pub at: Option<String>,
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
