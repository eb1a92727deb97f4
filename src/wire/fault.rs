//! Faults as they are shown, and the error body of the lovable routes.

use serde::{Deserialize, Serialize};

use super::{millis, rfc3339};
use crate::{
    fault::{Cause, Failure, Fault, Stage},
    registry::LastFault,
};

/// Why an attempt did not work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultView {
    /// How far it had come.
    pub stage: Stage,
    /// Why it stopped, as a word for programs.
    pub cause: String,
    /// The status that the server gave.
    pub status: Option<u16>,
    /// For how long the server wanted to be left alone.
    pub retry_after_ms: Option<f64>,
    /// The same for people: `refused the connection`.
    pub message: String,
    /// When it was, where that is not told around it.
    pub at: Option<String>,
}

impl From<&Fault> for FaultView {
    fn from(fault: &Fault) -> Self {
        let retry_after = if let Cause::Busy { retry_after } = fault.cause { retry_after } else { None };
        Self {
            stage: fault.stage,
            cause: fault.cause.word(),
            status: fault.status,
            retry_after_ms: retry_after.map(millis),
            message: fault.to_string(),
            at: None,
        }
    }
}

impl From<&LastFault> for FaultView {
    fn from(last: &LastFault) -> Self {
        Self { at: Some(rfc3339(last.at_ms)), ..Self::from(&last.fault) }
    }
}

/// The body of every error on the lovable routes; in a stream, one event of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

/// What went wrong, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// A word for programs: `no_server`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// The request that it was.
    pub request_id: Option<String>,
}

impl ErrorBody {
    /// What the caller is told of a failure.
    pub fn of(failure: &Failure, request_id: Option<&str>) -> Self {
        Self {
            error: ErrorView {
                code: failure.code().to_owned(),
                message: failure.message(),
                request_id: request_id.map(str::to_owned),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_busy_server_is_told_with_its_pause_in_milliseconds() {
        let fault = Fault {
            stage: Stage::Head,
            cause: Cause::Busy { retry_after: Some(Duration::from_secs(3)) },
            status: Some(429),
        };
        assert_eq!(
            serde_json::to_value(FaultView::from(&fault)).unwrap(),
            serde_json::json!({
                "stage": "head", "cause": "busy", "status": 429, "retry_after_ms": 3000.0,
                "message": "is busy (status 429)", "at": null,
            })
        );
    }

    #[test]
    fn every_cause_has_a_word() {
        for cause in [Cause::Refused, Cause::FirstTokenTimeout, Cause::Busy { retry_after: None }] {
            assert!(!cause.word().is_empty());
        }
        assert_eq!(Cause::EarlyEnd.word(), "early_end");
    }

    #[test]
    fn an_error_says_code_message_and_request() {
        let body = ErrorBody::of(&Failure::NoServer("nothing found".into()), Some("r-1"));
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"error":{"code":"no_server","message":"nothing found","request_id":"r-1"}}"#
        );
    }
}
