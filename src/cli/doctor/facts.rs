//! What the checks go by. Values only: how they are gathered is in `gather`.

use std::path::PathBuf;

use crate::wire::{ModelView, ServerView, Setting, Status};

/// Everything that was looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The version of this program.
    pub(super) version: String,
    pub(super) now_ms: u64,
    pub(super) uid: u32,
    pub(super) user: String,
    /// Whether this is a Mac.
    pub(super) mac: bool,
    /// Where a daemon may be, in the order in which it is looked for.
    pub(super) sockets: Vec<SocketFact>,
    /// How the daemon is, if one answers.
    pub(super) status: Option<Status>,
    pub(super) servers: Vec<ServerView>,
    pub(super) models: Vec<ModelView>,
    /// The settings in force, or those that a daemon would start with.
    pub(super) settings: Vec<Setting>,
    /// What is wrong with the configuration.
    pub(super) configuration: Option<String>,
    /// Model servers that are installed here, each with what starts it.
    pub(super) installed: Vec<(&'static str, &'static str)>,
    /// Variables of this shell that the daemon has not, or has with another value.
    pub(super) unseen: Vec<String>,
    /// Whether `service install` has been here.
    pub(super) has_service: bool,
    pub(super) multicast: Multicast,
    /// The directory of the state, and what is free on its disk.
    pub(super) state: Option<PathBuf>,
    pub(super) free: Option<u64>,
    /// Databases that were damaged and moved aside.
    pub(super) moved_aside: Vec<PathBuf>,
    /// Memory of this machine, and of its GPU as far as the configuration says it.
    pub(super) memory: Option<u64>,
    pub(super) gpu_memory: u64,
}

/// A socket as the file system has it, and what came of knocking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketFact {
    pub(super) path: PathBuf,
    /// Whether it is the system's, for a group.
    pub(super) of_system: bool,
    pub(super) owner: Option<Owner>,
    pub(super) directory: Option<Owner>,
    pub(super) knock: Knock,
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) mode: u32,
    pub(super) is_socket: bool,
}

/// What came of knocking at a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Knock {
    /// There is none.
    Nothing,
    /// Nobody listens.
    Refused,
    /// We may not open it.
    Denied,
    /// It takes the connection and says nothing.
    Silent,
    /// A daemon answers; its process.
    Answers(u32),
    /// Something else happened.
    Other(String),
}

/// Whether servers on the network can be found by mDNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Multicast {
    /// It was not tried.
    #[default]
    Untried,
    /// What is sent to the group comes back.
    Works,
    /// No interface has a route for it.
    NoRoute,
    /// The system does not let it out.
    Forbidden,
    /// It goes out, and nothing comes in.
    Deaf,
}

impl Facts {
    /// A setting in force.
    pub(super) fn setting(&self, key: &str) -> Option<&serde_json::Value> {
        self.settings.iter().find(|it| it.key == key).map(|it| &it.value)
    }
}
