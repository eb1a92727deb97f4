//! A model as it is listed, in whichever dialect.

use crate::server::Capability;

/// What pickers want to know of a model. What no server says is `None`.
#[derive(Clone, Debug, Default)]
pub struct Listed<'a> {
    /// The name to ask for.
    pub id: &'a str,
    /// When it became known, seconds since 1970.
    pub created: u64,
    /// Who serves it: the kind of its first server.
    pub owned_by: &'a str,
    /// Architecture or family: `qwen3`.
    pub family: Option<&'a str>,
    /// Parameter count as people write it: `8.2B`.
    pub parameters: Option<&'a str>,
    /// Quantisation: `Q4_K_M`.
    pub quantization: Option<&'a str>,
    /// The longest context that a request can have, in tokens.
    pub context_length: Option<u64>,
    /// What it can do.
    pub capabilities: &'a [Capability],
    /// Whether some server has it in memory.
    pub loaded: Option<bool>,
    /// Size of its file, in bytes.
    pub size_bytes: Option<u64>,
    /// Memory that it takes now, in bytes.
    pub memory_bytes: Option<u64>,
    /// When it will be unloaded, RFC 3339.
    pub expires: Option<&'a str>,
    /// The ids of the servers that have it.
    pub servers: Vec<&'a str>,
}
