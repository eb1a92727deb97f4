//! Builds the rooms, each from its own settings and from what was stored.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::task::JoinSet;

use crate::{
    api::{self, Door},
    config::{Loaded, ServerEntry},
    housekeeping::{self, Housekeeping, now, read_change, read_figures},
    registry::{Hint, Registry, ServerSettings},
    relay::{self, Relay},
    scan,
    service::launch::RunError,
    simulate::{self, Simulated},
    server::{Endpoint, Source},
    stats::Stats,
    store::{Loaded as Stored, Store, StoreError},
    upstream::{self, Key, Upstream},
    wire::{ConfigView, Setting},
};
