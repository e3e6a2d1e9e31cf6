//! One call over all its attempts: sends what `endpoints`, `course` and `session` decide.
//!
//! Of HTTP it knows how to tell an answer from a problem and a connection that was never made from one that broke. It
//! knows no key and no rule.

use crate::client::ExactlyOnce;
use crate::course::{Attempt, Course, Standing, Step};
use crate::endpoints::Endpoints;
use crate::error::Cause;
use crate::session::{Session, Ticket};
use balsa_wire::cluster::ClusterAnswer;
use balsa_wire::header;
use balsa_wire::kv::SessionAnswer;
use balsa_wire::problem::{CONTENT_TYPE, Outcome, Problem};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::HeaderMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bounds of one attempt, within the deadline of its call: a node that hangs must leave time for another.
const ATTEMPT_TIMEOUT_MIN: Duration = Duration::from_millis(500);
const ATTEMPT_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// How long a probe of a learned address may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// What is asked, the same at every attempt.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query, encoded.
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) retry: Retry,
    /// How long a node may let it wait, beyond what it takes.
    pub(crate) patience: Duration,
}

/// What makes a second attempt safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Retry {
    /// It changes nothing, or the same again is nothing new.
    Harmless,
    /// The cluster tells a second attempt from another request.
    Recognised,
    /// Nothing: it is repeated only where it was surely not applied.
    Unsafe,
}

/// An answer of success.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Who gave it.
    pub(crate) endpoint: String,
}

/// The truth about a call that failed.
pub(crate) type Failed = (Outcome, Cause);

/// The shared inside of a client.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    // A std Mutex, since nothing awaits while it is held.
    endpoints: Mutex<Endpoints>,
    exactly_once: ExactlyOnce,
    /// Held while a session is opened, so that one is.
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
    attempt_timeout: Duration,
}

/// How an attempt carries what makes it recognised.
enum Mark {
    None,
    Key(String),
    Ticket(Ticket),
}

impl Transport {
    pub(crate) fn new(
        endpoints: Endpoints,
        timeout: Duration,
        exactly_once: ExactlyOnce,
    ) -> Result<Transport, String> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .user_agent(concat!("balsa-client/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| describe(&error))?;
        Ok(Transport {
            http,
            endpoints: Mutex::new(endpoints),
            exactly_once,
            session: tokio::sync::Mutex::new(None),
            attempt_timeout: (timeout / 3).clamp(ATTEMPT_TIMEOUT_MIN, ATTEMPT_TIMEOUT_MAX),
        })
    }

    /// Sends a request until it has an outcome or `timeout` is over.
    pub(crate) async fn call(
        self: &Arc<Self>,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answer, Failed> {
        let deadline = Instant::now() + timeout;
        let mut course = Course::new(request.retry != Retry::Unsafe);
        let mut mark = self.mark(request.retry, deadline).await?;
        loop {
            let endpoint = self.with_endpoints(|endpoints| endpoints.choose(Instant::now()).to_owned());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(course.deadline());
            }
            let (attempt, answer) = self.attempt(&endpoint, request, &mark, left).await;
            let step = course.after(attempt, random());
            self.note_step(&endpoint, &step);
            let retry_after = match step {
                Step::Done => match answer {
                    Some(answer) => return Ok(answer),
                    None => unreachable!("a success without its answer from {endpoint}"),
                },
                Step::Fail { outcome, cause } => return Err((outcome, cause)),
                Step::NewSession => {
                    if let Mark::Ticket(ticket) = &mark {
                        self.forget_session(ticket.session()).await;
                    }
                    mark = self.mark(request.retry, deadline).await?;
                    Duration::ZERO
                }
                Step::Retry { wait, .. } => wait,
            };
            pause(retry_after, deadline).await;
        }
    }

    /// Sends a request that changes nothing until an answer begins, or `timeout` is over. Its body, which may never end, is
    /// the caller's to read. Gives who answers, too.
    pub(crate) async fn open(
        self: &Arc<Self>,
        request: &Request,
        timeout: Duration,
    ) -> Result<(reqwest::Response, String), Cause> {
        let deadline = Instant::now() + timeout;
        let mut course = Course::new(true);
        loop {
            let endpoint = self.with_endpoints(|endpoints| endpoints.choose(Instant::now()).to_owned());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(course.deadline().1);
            }
            let limit = left.min(self.attempt_timeout);
            let beginning = async {
                let answer = self.begin(self.sending(&endpoint, request), &endpoint).await?;
                match answer.status().is_success() {
                    true => Ok(answer),
                    false => Err(self.refused(&endpoint, answer).await),
                }
            };
            let attempt = match tokio::time::timeout(limit, beginning).await {
                Ok(Ok(answer)) => return Ok((answer, endpoint)),
                Ok(Err(attempt)) => attempt,
                Err(_) => Attempt::Broken(Cause::NoAnswer {
                    endpoint: endpoint.clone(),
                    error: "timed out".to_owned(),
                }),
            };
            let step = course.after(attempt, random());
            self.note_step(&endpoint, &step);
            match step {
                Step::Fail { cause, .. } => return Err(cause),
                Step::Retry { wait, .. } => pause(wait, deadline).await,
                Step::Done | Step::NewSession => {}
            }
        }
    }

    fn note_step(&self, endpoint: &str, step: &Step) {
        match step {
            Step::Retry { endpoint: Standing::Failed, .. } => {
                self.with_endpoints(|endpoints| endpoints.failed(endpoint, Instant::now()));
            }
            Step::Retry { endpoint: Standing::Declined, .. } => {
                self.with_endpoints(|endpoints| endpoints.declined(endpoint));
            }
            Step::Done | Step::Fail { .. } | Step::NewSession => {}
        }
    }

    fn sending(&self, endpoint: &str, request: &Request) -> reqwest::RequestBuilder {
        let url = format!("http://{endpoint}{}", request.target);
        let sending = self.http.request(request.method.clone(), url).body(request.body.clone());
        request.headers.iter().fold(sending, |sending, (name, value)| sending.header(*name, value))
    }

    /// Sends, and learns from the head of the answer.
    async fn begin(
        self: &Arc<Self>,
        sending: reqwest::RequestBuilder,
        endpoint: &str,
    ) -> Result<reqwest::Response, Attempt> {
        match sending.send().await {
            Ok(answer) => {
                self.note_answer(endpoint, answer.headers());
                Ok(answer)
            }
            Err(error) if error.is_builder() => {
                let cause = Cause::Invalid(format!("the request cannot be sent: {}", describe(&error)));
                Err(Attempt::Foreign { status: 400, cause })
            }
            Err(error) if error.is_connect() => Err(Attempt::NotSent(no_answer(endpoint, &error))),
            Err(error) => Err(Attempt::Broken(no_answer(endpoint, &error))),
        }
    }

    /// What an answer that is no success says.
    async fn refused(&self, endpoint: &str, mut answer: reqwest::Response) -> Attempt {
        let (status, headers) = (answer.status(), std::mem::take(answer.headers_mut()));
        let body = match answer.bytes().await {
            Ok(body) => body,
            Err(error) => return Attempt::Broken(no_answer(endpoint, &error)),
        };
        let is_problem = text(&headers, "content-type").is_some_and(|kind| kind.starts_with(CONTENT_TYPE));
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => Attempt::Problem(Box::new(problem)),
            _ => {
                let start = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                let cause =
                    Cause::Foreign { endpoint: endpoint.to_owned(), what: format!("{status} {start}") };
                Attempt::Foreign { status: status.as_u16(), cause }
            }
        }
    }

    async fn attempt(
        self: &Arc<Self>,
        endpoint: &str,
        request: &Request,
        mark: &Mark,
        left: Duration,
    ) -> (Attempt, Option<Answer>) {
        let mut sending = self.sending(endpoint, request);
        sending = match mark {
            Mark::None => sending,
            Mark::Key(key) => sending.header(header::IDEMPOTENCY_KEY, key),
            Mark::Ticket(ticket) => sending.header(header::SESSION, ticket.header()),
        };
        let sending = sending.timeout(left.min(self.attempt_timeout + request.patience));
        let mut answer = match self.begin(sending, endpoint).await {
            Ok(answer) => answer,
            Err(attempt) => return (attempt, None),
        };
        let status = answer.status();
        if !status.is_success() && status != reqwest::StatusCode::NOT_MODIFIED {
            return (self.refused(endpoint, answer).await, None);
        }
        let headers = std::mem::take(answer.headers_mut());
        match answer.bytes().await {
            Ok(body) => (Attempt::Success, Some(Answer { headers, body, endpoint: endpoint.to_owned() })),
            Err(error) => (Attempt::HalfSuccess(no_answer(endpoint, &error)), None),
        }
    }

    /// Learns from an answer's headers.
    fn note_answer(self: &Arc<Self>, endpoint: &str, headers: &HeaderMap) {
        let leader = text(headers, header::LEADER);
        let probe = self.with_endpoints(|endpoints| endpoints.answered(endpoint, leader, Instant::now()));
        let Some(address) = probe else { return };
        let cluster = text(headers, header::CLUSTER).map(str::to_owned);
        let transport = Arc::clone(self);
        tokio::spawn(async move {
            let ok = transport.is_member(&address, cluster.as_deref()).await;
            transport.with_endpoints(|endpoints| endpoints.probed(&address, ok, Instant::now()));
        });
    }

    /// Whether a node of `cluster` answers at `address`.
    async fn is_member(&self, address: &str, cluster: Option<&str>) -> bool {
        let asked = self.http.get(format!("http://{address}/v1/cluster")).timeout(PROBE_TIMEOUT).send();
        let Ok(answer) = asked.await else { return false };
        let Ok(body) = answer.bytes().await else { return false };
        let seen = serde_json::from_slice::<ClusterAnswer>(&body).ok().and_then(|seen| seen.cluster);
        cluster.is_some() && seen.as_deref() == cluster
    }

    async fn mark(self: &Arc<Self>, retry: Retry, deadline: Instant) -> Result<Mark, Failed> {
        if retry != Retry::Recognised {
            return Ok(Mark::None);
        }
        match self.exactly_once {
            ExactlyOnce::IdempotencyKey => {
                let random = |_| u64::from(random()) << 32 | u64::from(self::random());
                Ok(Mark::Key(format!("{:016x}{:016x}", random(0), random(1))))
            }
            ExactlyOnce::Session => {
                let waits = tokio::time::timeout_at(deadline.into(), self.session.lock());
                let mut session = waits.await.map_err(|_| (Outcome::NotApplied, Cause::Deadline))?;
                let open = match &*session {
                    Some(open) => Arc::clone(open),
                    None => {
                        let opened = self.open_session(deadline).await?;
                        Arc::clone(session.insert(opened))
                    }
                };
                Ok(Mark::Ticket(open.ticket()))
            }
        }
    }

    async fn open_session(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Session>, Failed> {
        // One that was opened in vain expires unused.
        let request = Request {
            method: Method::POST,
            target: "/v1/sessions".to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            retry: Retry::Harmless,
            patience: Duration::ZERO,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // Whatever becomes of the session, the write that wants it was not sent.
        let answer =
            Box::pin(self.call(&request, left)).await.map_err(|(_, cause)| (Outcome::NotApplied, cause))?;
        let opened: SessionAnswer = parse(&answer).map_err(|cause| (Outcome::NotApplied, cause))?;
        Ok(Session::new(opened.session))
    }

    async fn forget_session(&self, number: u64) {
        let mut session = self.session.lock().await;
        if session.as_ref().is_some_and(|open| open.number() == number) {
            *session = None;
        }
    }

    // A panic elsewhere cannot leave the endpoints half changed: no change panics in its middle.
    fn with_endpoints<T>(&self, act: impl FnOnce(&mut Endpoints) -> T) -> T {
        act(&mut self.endpoints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits so long, but not beyond the deadline.
async fn pause(wait: Duration, deadline: Instant) {
    if !wait.is_zero() {
        tokio::time::sleep_until(deadline.min(Instant::now() + wait).into()).await;
    }
}

fn no_answer(endpoint: &str, error: &reqwest::Error) -> Cause {
    Cause::NoAnswer { endpoint: endpoint.to_owned(), error: describe(error) }
}

/// Reads an answer's body.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, Cause> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Cause::Foreign { endpoint: answer.endpoint.clone(), what: error.to_string() })
}

/// A header's text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Any 32 bits.
pub(crate) fn random() -> u32 {
    // A system without randomness jitters badly, which hurts nobody: keys of requests need more, and are refused.
    getrandom::u32().unwrap_or_else(|error| unreachable!("the system gives no randomness: {error}"))
}

/// An error with what is below it: the library's own words end where they become interesting.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "timed out".to_owned() } else { String::new() };
    let mut below = error.source();
    while let Some(error) = below {
        let words = error.to_string();
        if !text.contains(&words) {
            text = if text.is_empty() { words } else { format!("{text}: {words}") };
        }
        below = error.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}
