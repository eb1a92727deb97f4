//! The loop that asks: one conversation per due endpoint, many side by side.
//!
//! A conversation is led by the kinds, question by question; here are its
//! limits, and what its end is called. A server's descriptions of its models
//! are kept between conversations for as long as its list stays the same: they
//! are large, and the server has to open the model's file for each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::mpsc::{Receiver, Sender},
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    fault::{Cause, Fault, Stage},
    kind::{self, Answer, Answers, Question, Verdict},
    scan::Watch,
    server::{Endpoint, KindId, ModelName, Sighting},
    upstream::{Key, Limits, Upstream},
};

/// Conversations at once. A vLLM's dozen internal sockets take a connection and
/// never answer; they must not keep a server next to them waiting.
const AT_ONCE: usize = 32;

/// Of these with strangers in the network. Whoever invents a hundred of them there has each
/// conversation wait for its connection.
const AFAR_AT_ONCE: usize = 12;

/// How long a server in the network that was there a moment ago may take to take a connection.
/// It is missed three times before it counts as gone, which together takes two seconds.
const REACH: Duration = Duration::from_millis(300);

/// Wake-ups are no closer than this: what is due within it is asked together.
const TOGETHER: Duration = Duration::from_millis(20);

/// A server on this machine answers a GET in milliseconds unless it is in
/// trouble or works its only thread; on a network it may be behind Wi-Fi.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(5));

/// Patience for a whole conversation, likewise. Describing fifty models takes
/// an Ollama a second.
const PATIENCE_IN_ALL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// A loopback connection is there at once or hangs in a full backlog; one to the other end of
/// the world takes its name, two rounds and a handshake.
const CONNECT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));

/// Of what answers `GET /` a line is enough for most, a page's beginning for the rest.
const ROOT_BYTES: usize = 64 << 10;

/// Lists of models are some 300 bytes a model; a gateway may have thousands,
/// and one that describes them with licence and template takes megabytes.
const LIST_BYTES: usize = 8 << 20;

/// How long descriptions are kept at most, in case a change does not show in the list.
const KEEP_FOR: Duration = Duration::from_secs(600);

/// How much of them is kept per server; what is beyond is asked again each time.
const KEEP_BYTES: usize = 1 << 20;

/// Asks what is due, for ever, reaches for servers of the network that are `slow`, and says who
/// was `missing`.
pub(super) async fn run<W: Watch>(
    upstream: Arc<Upstream>,
    watch: Arc<W>,
    mut slow: Receiver<Endpoint>,
    missing: Sender<Endpoint>,
    instance: &str,
) {
    let instance = instance.to_owned();
    let prober = Arc::new(Prober { upstream, watch, missing, instance, kept: Mutex::default() });
    let (mut near, mut afar) = (VecDeque::new(), VecDeque::new());
    let mut tasks = JoinSet::new();
    let reach = |endpoint: Endpoint| {
        let prober = prober.clone();
        async move { prober.reach(&endpoint).await }
    };
    let mut beats = FuturesUnordered::new();
    let mut asked: HashMap<Id, Endpoint> = HashMap::new();
    let mut due = prober.watch.due();
    let mut first_round: Option<BTreeSet<Endpoint>> = Some(due.iter().cloned().collect());
    loop {
        if first_round.take_if(|it| it.is_empty()).is_some() {
            prober.watch.first_round_is_over();
        }
        due.extend(prober.watch.due());
        for endpoint in due.drain(..) {
            if endpoint.is_local() { near.push_back(endpoint) } else { afar.push_back(endpoint) }
        }
        // Whoever was missed is reached for again at once.
        beats.extend(prober.watch.beats().into_iter().map(&reach));
        while tasks.len() < AT_ONCE {
            let room_afar = asked.values().filter(|it| !it.is_local()).count() < AFAR_AT_ONCE;
            let next = near.pop_front().or_else(|| afar.pop_front_if(|_| room_afar));
            let Some(endpoint) = next else { break };
            let (prober, at) = (prober.clone(), endpoint.clone());
            let task = tasks.spawn(async move { prober.look(&at).await });
            asked.insert(task.id(), endpoint);
        }
        let next = prober.watch.poll_timeout().map(Instant::from_std);
        let wake = async {
            match next {
                Some(at) => sleep_until(at.max(Instant::now() + TOGETHER)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake => {}
            () = prober.watch.changed() => {}
            Some(()) = beats.next() => {}
            Some(endpoint) = slow.recv() => beats.push(reach(endpoint)),
            Some(ended) = tasks.join_next_with_id() => {
                let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
                let endpoint = asked.remove(&id);
                if let (Some(round), Some(endpoint)) = (&mut first_round, &endpoint) {
                    round.remove(endpoint);
                }
                // A conversation that panicked must not be waited for for ever.
                if let (Err(_), Some(endpoint)) = (ended, endpoint) {
                    prober.watch.silent(&endpoint, Fault::new(Stage::Head, Cause::Internal));
                }
            }
        }
    }
}

/// How a conversation ended.
#[derive(Debug)]
enum End {
    Seen(Box<Sighting>),
    Silent(Fault),
    Foreign,
}

struct Prober<W> {
    upstream: Arc<Upstream>,
    watch: Arc<W>,
    missing: Sender<Endpoint>,
    instance: String,
    kept: Mutex<BTreeMap<Endpoint, Kept>>,
}

/// Descriptions of models, and the list that they belong to.
#[derive(Clone)]
struct Kept {
    answers: Arc<Vec<(Question, Answer)>>,
    list: List,
    since: Instant,
}

/// What must stay the same for descriptions to be still true.
type List = (KindId, Option<String>, Vec<(ModelName, Option<u64>)>);

fn list_of(it: &Sighting) -> List {
    let models = it.models.iter().map(|it| (it.name.clone(), it.size_bytes)).collect();
    (it.kind.clone(), it.version.clone(), models)
}

impl<W: Watch> Prober<W> {
    async fn look(&self, endpoint: &Endpoint) {
        let patience = of_two(PATIENCE_IN_ALL, endpoint);
        let end = timeout(patience, self.recognise(endpoint)).await;
        let end = end.unwrap_or(End::Silent(Fault::new(Stage::Head, Cause::FirstTokenTimeout)));
        match end {
            End::Seen(sighting) => {
                tracing::debug!(%endpoint, kind = %sighting.kind, models = sighting.models.len(), "recognised");
                self.watch.seen(endpoint, *sighting);
            }
            End::Silent(fault) => {
                tracing::debug!(%endpoint, %fault, "no answer");
                self.watch.silent(endpoint, fault);
                self.miss(endpoint);
            }
            End::Foreign => {
                tracing::debug!(%endpoint, "something else");
                self.kept().remove(endpoint);
                self.watch.foreign(endpoint);
            }
        }
    }

    /// Finds out whether a server is still there, and no more.
    async fn reach(&self, endpoint: &Endpoint) {
        let result = self.upstream.reach(endpoint, REACH).await;
        let is_missed = result.is_err();
        self.watch.reached(endpoint, result);
        if is_missed {
            self.miss(endpoint);
        }
    }

    fn miss(&self, endpoint: &Endpoint) {
        // When nobody takes it there is somebody missing all the time.
        let _ = self.missing.try_send(endpoint.clone());
    }

    async fn recognise(&self, endpoint: &Endpoint) -> End {
        let kept = self.kept().get(endpoint).filter(|it| it.since.elapsed() < KEEP_FOR).cloned();
        let known = kept.as_ref().map_or(&[][..], |it| &it.answers);
        let (mut end, mut heard) = self.converse(endpoint, known).await;
        let mut since = kept.as_ref().map(|it| it.since);
        if let (End::Seen(sighting), Some(kept)) = (&end, &kept)
            && list_of(sighting) != kept.list
        {
            (end, heard) = self.converse(endpoint, &[]).await;
            since = None;
        }
        if let End::Seen(sighting) = &end {
            let mut room = KEEP_BYTES;
            heard.retain(|(_, answer)| match room.checked_sub(answer.body.len()) {
                Some(left) => {
                    room = left;
                    answer.status == 200
                }
                None => false,
            });
            let since = since.unwrap_or_else(Instant::now);
            let kept = Kept { answers: Arc::new(heard), list: list_of(sighting), since };
            if kept.answers.is_empty() {
                self.kept().remove(endpoint);
            } else {
                self.kept().insert(endpoint.clone(), kept);
            }
        }
        end
    }

    /// Asks until it is clear what this is. `known` are answers to POSTs that
    /// need not be asked; the answers to all POSTs come back.
    async fn converse(
        &self,
        endpoint: &Endpoint,
        known: &[(Question, Answer)],
    ) -> (End, Vec<(Question, Answer)>) {
        let key = self.watch.key(endpoint);
        let claimed = self.watch.claimed(endpoint);
        let recognise = |answers: &Answers| match &claimed {
            Some(kind) => kind::recognise_as(kind.as_str(), answers),
            None => kind::recognise(answers),
        };
        let mut answers = Answers::of(&self.instance);
        let mut heard = Vec::new();
        let mut last_status = 0;
        loop {
            let question = match recognise(&answers) {
                Verdict::Proof(sighting) => return (End::Seen(sighting), heard),
                Verdict::No => return (End::Foreign, heard),
                Verdict::NotYet => return (End::Silent(not_yet(last_status)), heard),
                Verdict::Ask(question) => question,
            };
            let answer = match known.iter().find(|(it, _)| *it == question) {
                Some((_, answer)) => Ok(answer.clone()),
                // Whoever was configured to be asked with a key is not asked without it first.
                None if claimed.is_some() => self.ask_with(endpoint, &question, key.as_ref()).await,
                None => self.ask(endpoint, &question, key.as_ref()).await,
            };
            let answer = match answer {
                Ok(answer) => answer,
                // Something answers, and not in HTTP: that is no server of ours.
                Err(fault) if fault.cause == Cause::BadHead && answers.is_empty() => {
                    return (End::Foreign, heard);
                }
                // A description that does not come is missed less than the server.
                Err(_) if question.post.is_some() => Answer { status: 504, ..Answer::default() },
                Err(fault) => return (End::Silent(fault), heard),
            };
            last_status = answer.status;
            if question.post.is_some() {
                heard.push((question.clone(), answer.clone()));
            }
            answers.push(question, answer);
        }
    }

    /// The key is shown only to who asks for one: most of those asked here are
    /// strangers.
    async fn ask(
        &self,
        endpoint: &Endpoint,
        question: &Question,
        key: Option<&Key>,
    ) -> Result<Answer, Fault> {
        let answer = self.ask_with(endpoint, question, None).await?;
        if matches!(answer.status, 401 | 403) && key.is_some() {
            return self.ask_with(endpoint, question, key).await;
        }
        Ok(answer)
    }

    async fn ask_with(
        &self,
        endpoint: &Endpoint,
        question: &Question,
        key: Option<&Key>,
    ) -> Result<Answer, Fault> {
        let bytes = if question.path == "/" { ROOT_BYTES } else { LIST_BYTES };
        let limits = Limits {
            time: of_two(PATIENCE, endpoint),
            connect: of_two(CONNECT, endpoint),
            bounds: self.watch.bounds(endpoint),
            bytes,
        };
        self.upstream.ask(endpoint, question, key, limits).await
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<Endpoint, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to call an answer that proves nothing yet.
fn not_yet(status: u16) -> Fault {
    let cause = match status {
        503 => Cause::Loading,
        500.. => Cause::Status,
        _ => Cause::Unreadable,
    };
    Fault { status: Some(status), ..Fault::new(Stage::Head, cause) }
}

fn of_two((here, there): (Duration, Duration), endpoint: &Endpoint) -> Duration {
    if endpoint.is_local() { here } else { there }
}
