//! All requests, one line each, as they are read from the disk: never more than a piece of
//! them is in memory, and who reads slowly makes nobody wait.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Response,
    body::Frame,
    header::{CONTENT_TYPE, HeaderValue},
};
use tokio::sync::watch;

use super::{Knock, history};
use crate::{
    fault::Failure,
    generate::Outcome,
    housekeeping::Export,
    relay::Body,
    wire::{RequestView, csv_head, csv_line},
};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Csv,
    JsonLines,
}

pub(super) async fn export(knock: Knock) -> Response<Body> {
    let (format, filter) = match format(&knock).and_then(|it| Ok((it, history::filter(&knock)?))) {
        Ok(asked) => asked,
        Err(failure) => return knock.refuse(&failure),
    };
    let lines = Lines {
        format,
        is_begun: false,
        export: knock.door.house.export(filter).await,
        stopping: knock.door.stopping.clone(),
    };
    let lines = stream::try_unfold(lines, |mut lines| async move {
        Ok(lines.next().await?.map(|piece| (Frame::data(piece), lines)))
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    let content_type = match format {
        Format::Csv => "text/csv; charset=utf-8",
        Format::JsonLines => "application/x-ndjson",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn format(knock: &Knock) -> Result<Format, Failure> {
    match knock.parameter("format").as_deref() {
        Some("csv") => Ok(Format::Csv),
        None | Some("jsonl") => Ok(Format::JsonLines),
        Some(other) => Err(Failure::BadRequest(format!(
            "`format` takes csv or jsonl, not `{other}` (`lovablectl stats export` makes sqlite and parquet of that)"
        ))),
    }
}

struct Lines {
    format: Format,
    is_begun: bool,
    export: Export,
    stopping: watch::Receiver<bool>,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Bytes>, io::Error> {
        if !std::mem::replace(&mut self.is_begun, true) && self.format == Format::Csv {
            return Ok(Some(csv_head().into()));
        }
        let outcomes = tokio::select! {
            // Half an export must not look whole.
            _ = self.stopping.wait_for(|stop| *stop) => return Err(io::Error::other("the daemon stops")),
            read = self.export.next() => read.map_err(io::Error::other)?,
        };
        if outcomes.is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        for outcome in &outcomes {
            self.line(outcome, &mut text)?;
        }
        Ok(Some(text.into()))
    }

    fn line(&self, outcome: &Outcome, text: &mut String) -> Result<(), io::Error> {
        let view = RequestView::from(outcome);
        match self.format {
            Format::Csv => text.push_str(&csv_line(&view)),
            Format::JsonLines => {
                text.push_str(&serde_json::to_string(&view)?);
                text.push('\n');
            }
        }
        Ok(())
    }
}
