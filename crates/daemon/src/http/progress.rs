//! Work that reports as it goes: an answer of progress lines. A failure before the first line is an ordinary refusal; later
//! it is the last line. The work ends with the client.

use super::{ApiError, Reply, stream};
use bytes::Bytes;
use futures_util::stream::{StreamExt, once, unfold};
use gantry_api::progress::JsonMessage;
use std::future::Future;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

/// Where work reports to.
pub type Reports = UnboundedSender<JsonMessage>;

type Task = AbortOnDropHandle<Result<(), ApiError>>;

/// Runs the work and answers with its reports.
pub async fn run<F, W>(work: F) -> Reply
where
    F: FnOnce(Reports) -> W,
    W: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, mut receiver) = unbounded_channel();
    let task = AbortOnDropHandle::new(tokio::spawn(work(sender)));
    let Some(first) = receiver.recv().await else {
        outcome(task).await?;
        return Ok(stream::chunks("application/json", futures_util::stream::empty()));
    };
    let rest = unfold(Some((receiver, task)), next);
    let lines = once(std::future::ready(first)).chain(rest).map(|message| Ok(Bytes::from(message.to_line())));
    Ok(stream::chunks("application/json", lines))
}

async fn next(
    state: Option<(UnboundedReceiver<JsonMessage>, Task)>,
) -> Option<(JsonMessage, Option<(UnboundedReceiver<JsonMessage>, Task)>)> {
    let (mut receiver, task) = state?;
    match receiver.recv().await {
        Some(message) => Some((message, Some((receiver, task)))),
        None => match outcome(task).await {
            Ok(()) => None,
            Err(error) => Some((JsonMessage::failure(error.message), None)),
        },
    }
}

async fn outcome(task: Task) -> Result<(), ApiError> {
    match task.await {
        Ok(result) => result,
        Err(error) => Err(ApiError::internal(format!("the work was interrupted: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn text(reply: Reply) -> String {
        let body = reply.unwrap().into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_failure_before_the_first_line_is_a_refusal() {
        let reply = run(|_reports| async { Err(ApiError::not_found("no such thing")) }).await;
        assert_eq!(reply.unwrap_err().message, "no such thing");
    }

    #[tokio::test]
    async fn a_later_failure_is_the_last_line() {
        let reply = run(|reports: Reports| async move {
            let _ = reports.send(JsonMessage::status("one"));
            Err(ApiError::internal("broke"))
        });
        let expected =
            "{\"status\":\"one\"}\r\n{\"errorDetail\":{\"message\":\"broke\"},\"error\":\"broke\"}\r\n";
        assert_eq!(text(reply.await).await, expected);
    }
}
