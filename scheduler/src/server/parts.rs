//! A peer's frames, part by part: what one turn of the hub takes of them, and where they are decoded.
//!
//! A frame may hold millions of messages, or one that names millions of tasks. It is decoded and handled in parts of bounded
//! work, and a peer has few parts in the hub's line, so parts of all peers take turns. Long frames are decoded, and graphs
//! checked, on other threads than the network's, which has everybody's signs of life to send.

use std::collections::VecDeque;
use std::sync::Arc;

use rask_comm::Quiet;
use rask_comm::codec::CodecError;
use rask_comm::control::Frame;
use rask_comm::gate::Gates;
use rask_comm::limits::{INLINE_FRAME_NBYTES, MAX_DECODERS, MAX_PARTS_WAITING, TURN_WEIGHT};
use rask_comm::message::{FromClient, FromWorker};
use rask_graphs::{ClientId, WorkerId};
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::machine::{Event, PreparedGraph};

/// Whose messages are read, and what events they are.
pub(super) trait Speaker: Copy + Send + 'static {
    type Message: DeserializeOwned + Send + 'static;

    /// Add the events that `message` is, with what each weighs: messages, and tasks that they name.
    fn events_of(self, message: Self::Message, out: &mut Part);
}

/// Events, in order, and what they weigh together.
#[derive(Default)]
pub(super) struct Part {
    pub(super) events: Vec<Event>,
    weight: usize,
}

impl Part {
    fn push(&mut self, event: Event, weight: usize) {
        self.events.push(event);
        self.weight += weight;
    }
}

impl Speaker for WorkerId {
    type Message = FromWorker;

    fn events_of(self, message: FromWorker, out: &mut Part) {
        out.push(Event::WorkerSaid { worker: self, message }, 1);
    }
}

impl Speaker for ClientId {
    type Message = FromClient;

    fn events_of(self, message: FromClient, out: &mut Part) {
        let client = self;
        let mut say = |message, weight| out.push(Event::ClientSaid { client, message }, weight);
        match message {
            // Every task stands for itself.
            FromClient::Release { tasks } => {
                tasks.chunks(TURN_WEIGHT).for_each(|tasks| say(FromClient::Release { tasks: tasks.to_vec() }, tasks.len()));
            }
            FromClient::Locate { tasks } => {
                tasks.chunks(TURN_WEIGHT).for_each(|tasks| say(FromClient::Locate { tasks: tasks.to_vec() }, tasks.len()));
            }
            FromClient::Submit { request, graph, options } => match PreparedGraph::new(*graph) {
                Ok(graph) => {
                    let graph = Box::new(graph);
                    out.push(Event::ClientSubmitted { client, request, graph, options }, TURN_WEIGHT);
                }
                Err(reason) => out.push(Event::ClientMisspoke { client, request, reason }, 1),
            },
            FromClient::Scatter { .. } | FromClient::Cancel { .. } | FromClient::Attach { .. } => say(message, TURN_WEIGHT),
            FromClient::NotUploaded { .. } | FromClient::FetchFailed { .. } | FromClient::Status { .. } => say(message, 1),
        }
    }
}

/// A frame of one peer that is being handled, part by part.
pub(super) struct Parts<S> {
    speaker: S,
    frame: Option<Frame>,
    /// Events of messages that were longer than a part.
    left: VecDeque<Event>,
    decoders: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// What all conversations share: threads that decode long frames, room for these, and the log.
#[derive(Clone)]
pub(super) struct Intake {
    decoders: Arc<Semaphore>,
    pub(super) gates: Arc<Gates>,
    pub(super) quiet: Arc<Quiet>,
}

impl Default for Intake {
    fn default() -> Self {
        Self { decoders: Arc::new(Semaphore::new(MAX_DECODERS)), gates: Arc::default(), quiet: Arc::default() }
    }
}

impl<S: Speaker> Parts<S> {
    pub(super) fn new(speaker: S, intake: &Intake) -> Self {
        let places = Arc::new(Semaphore::new(MAX_PARTS_WAITING));
        Self { speaker, frame: None, left: VecDeque::new(), decoders: Arc::clone(&intake.decoders), places }
    }

    /// Begin with another frame; the one before is done.
    pub(super) fn begin(&mut self, frame: Frame) {
        self.frame = Some(frame);
    }

    /// The next part, once there is a place for it in the hub's line; `None` when the frame is done.
    ///
    /// # Errors
    /// When what comes is no message.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<Event>, OwnedSemaphorePermit)>, CodecError> {
        if self.left.is_empty() {
            let Some(frame) = self.frame.take() else { return Ok(None) };
            let (frame, part) = if frame.nbytes() > INLINE_FRAME_NBYTES {
                self.decode_elsewhere(frame).await?
            } else {
                decode_part(frame, self.speaker)?
            };
            self.frame = frame;
            if part.weight <= 2 * TURN_WEIGHT {
                return Ok(self.with_place(part.events).await);
            }
            self.left = part.events.into();
        }
        let mut events = Vec::new();
        let mut weight = 0;
        while let Some(event) = self.left.pop_front() {
            weight += weight_of(&event);
            events.push(event);
            if weight >= TURN_WEIGHT {
                break;
            }
        }
        Ok(self.with_place(events).await)
    }

    async fn with_place(&self, events: Vec<Event>) -> Option<(Vec<Event>, OwnedSemaphorePermit)> {
        if events.is_empty() {
            return None;
        }
        // Never closed.
        let place = Arc::clone(&self.places).acquire_owned().await;
        place.ok().map(|place| (events, place))
    }

    async fn decode_elsewhere(&self, frame: Frame) -> Result<(Option<Frame>, Part), CodecError> {
        let speaker = self.speaker;
        let turn = Arc::clone(&self.decoders).acquire_owned().await;
        let decoded = tokio::task::spawn_blocking(move || {
            let decoded = decode_part(frame, speaker);
            drop(turn);
            decoded
        });
        decoded.await.unwrap_or_else(|_| Err(CodecError::Malformed("it could not be decoded".to_owned())))
    }
}

/// What an event counts for when parts are cut.
fn weight_of(event: &Event) -> usize {
    match event {
        Event::ClientSaid { message: FromClient::Release { tasks } | FromClient::Locate { tasks }, .. } => tasks.len(),
        Event::ClientSubmitted { .. }
        | Event::ClientSaid {
            message: FromClient::Scatter { .. } | FromClient::Cancel { .. } | FromClient::Attach { .. }, ..
        } => TURN_WEIGHT,
        Event::ClientSaid { .. }
        | Event::ClientMisspoke { .. }
        | Event::WorkerSaid { .. }
        | Event::WorkerJoined { .. }
        | Event::WorkerLost { .. }
        | Event::ClientJoined { .. }
        | Event::ClientLost { .. } => 1,
    }
}

/// Decode messages until they weigh enough for a part. What is left of the frame comes back.
fn decode_part<S: Speaker>(mut frame: Frame, speaker: S) -> Result<(Option<Frame>, Part), CodecError> {
    let mut part = Part::default();
    while part.weight < TURN_WEIGHT {
        match frame.next_message::<S::Message>()? {
            Some(message) => speaker.events_of(message, &mut part),
            None => break,
        }
    }
    let is_done = frame.is_done();
    Ok(((!is_done).then_some(frame), part))
}

#[cfg(test)]
mod tests {
    use rask_comm::codec::{FRAME_LIMIT, encode_frame};
    use rask_comm::message::SubmitOptions;
    use rask_graphs::{FinishOptions, GraphBuilder, GraphId, TaskId, TaskIdx};

    use super::*;

    const CLIENT: ClientId = ClientId(7);

    fn frame_of(messages: &[FromClient]) -> Frame {
        let mut bytes = Vec::new();
        encode_frame(messages, FRAME_LIMIT, &mut bytes).unwrap();
        Frame::new(bytes).unwrap()
    }

    /// The parts of a frame, each taken as if the hub had handled the one before.
    async fn parts_of(messages: &[FromClient]) -> Vec<Vec<Event>> {
        let mut parts = Parts::new(CLIENT, &Intake::default());
        parts.begin(frame_of(messages));
        let mut taken = Vec::new();
        while let Some((events, _place)) = parts.next().await.unwrap() {
            taken.push(events);
        }
        taken
    }

    #[tokio::test]
    async fn a_frame_of_a_million_questions_is_handled_in_small_parts() {
        let questions = vec![FromClient::Status { request: 1 }; 1_000_000];
        let parts = parts_of(&questions).await;
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), questions.len());
        assert!(parts.iter().all(|events| events.len() <= TURN_WEIGHT));
    }

    #[tokio::test]
    async fn a_message_that_names_a_million_tasks_is_handled_in_small_parts() {
        let tasks: Vec<TaskId> = (0..1_000_000).map(|idx| TaskId::new(GraphId(1), TaskIdx(idx))).collect();
        for message in [FromClient::Release { tasks: tasks.clone() }, FromClient::Locate { tasks: tasks.clone() }] {
            let mut named = Vec::new();
            for events in parts_of(&[message]).await {
                assert!(events.iter().map(weight_of).sum::<usize>() <= TURN_WEIGHT);
                for event in events {
                    #[expect(clippy::wildcard_enum_match_arm, reason = "nothing else was said")]
                    match event {
                        Event::ClientSaid { message: FromClient::Release { tasks } | FromClient::Locate { tasks }, .. } => {
                            named.extend(tasks);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            assert_eq!(named, tasks, "all of them, in order");
        }
    }

    #[tokio::test]
    async fn no_peer_has_more_than_a_few_parts_in_line() {
        let mut parts = Parts::new(CLIENT, &Intake::default());
        parts.begin(frame_of(&vec![FromClient::Status { request: 1 }; 10 * TURN_WEIGHT]));
        let mut places = Vec::new();
        for _ in 0..MAX_PARTS_WAITING {
            places.push(parts.next().await.unwrap().unwrap().1);
        }
        let next = tokio::time::timeout(std::time::Duration::from_millis(20), parts.next()).await;
        assert!(next.is_err(), "the hub has not handled the ones before");
    }

    #[tokio::test]
    async fn graphs_are_checked_before_they_come_to_the_hub() {
        let mut graph = GraphBuilder::new();
        let task = graph.task("x", "core.noop", 1, "{}").add();
        graph.output(task);
        let graph = graph.finish(&FinishOptions::default()).unwrap().graph;
        let mut wrong = graph.clone();
        wrong.body_of[0] = 9;
        let submit = |graph| FromClient::Submit { request: 3, graph: Box::new(graph), options: SubmitOptions::default() };
        let parts = parts_of(&[submit(graph), submit(wrong), FromClient::Status { request: 4 }]).await;
        let events: Vec<Event> = parts.into_iter().flatten().collect();
        assert!(matches!(&events[0], Event::ClientSubmitted { request: 3, .. }));
        assert!(matches!(&events[1], Event::ClientMisspoke { request: 3, reason, .. } if reason.contains("body")));
        assert!(matches!(&events[2], Event::ClientSaid { message: FromClient::Status { request: 4 }, .. }));
    }
}
