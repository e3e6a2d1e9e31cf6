//! Reads on their way: whose answer lets which of them go, and that none is lost.

use super::membership::Node;
use super::*;
use crate::engine::handle::ReadError;

type Answered = (u64, Result<(), ReadError>);

fn read(engine: &mut Engine<Numbers>, ticket: u64, deadline_ms: u64) {
    engine.handle(0, Event::Read { ticket, deadline_ms });
}

fn replies(engine: &mut Engine<Numbers>, from: NodeId, id: u64, index: Option<u64>) {
    let message = PeerMessage::ReadIndexReply { id, index: index.map(Index) };
    engine.handle(0, Event::Message { from, message });
}

/// The question that is put to the leader, and the reads that are answered.
fn finish(engine: &mut Engine<Numbers>) -> (Option<u64>, Vec<Answered>) {
    let (mut asked, mut answered) = (None, Vec::new());
    for effect in engine.finish() {
        match effect {
            Effect::Send { to: LEADER, message: PeerMessage::ReadIndex { id } } => asked = Some(id),
            Effect::AnswerRead(ticket, answer) => answered.push((ticket, answer)),
            _ => {}
        }
    }
    (asked, answered)
}

#[test]
fn an_answer_lets_go_the_reads_that_came_before_its_question_and_no_others() {
    let mut engine = connected();
    let mut ask = |ticket| {
        read(&mut engine, ticket, 100);
        finish(&mut engine).0.expect("a question")
    };
    let (first, second) = (ask(1), ask(2));
    replies(&mut engine, OTHER, second, Some(0));
    assert_eq!(finish(&mut engine), (None, vec![]), "that one was not asked");
    replies(&mut engine, LEADER, first, Some(0));
    assert_eq!(finish(&mut engine), (None, vec![(1, Ok(()))]));
    replies(&mut engine, LEADER, first, Some(0));
    assert_eq!(finish(&mut engine), (None, vec![]), "said twice");
    replies(&mut engine, LEADER, second, Some(0));
    assert_eq!(finish(&mut engine), (None, vec![(2, Ok(()))]));
}

#[test]
fn reads_have_a_bound_and_their_places_come_back_however_they_end() {
    let mut engine = connected();
    let bound = config().max_reads as u64;
    let overloaded = Err(ReadError::Overloaded { what: "reads under way" });
    type End = fn(&mut Engine<Numbers>, u64);
    let ends: [End; 4] = [
        |engine, id| replies(engine, LEADER, id, Some(0)),
        |engine, id| {
            replies(engine, LEADER, id, Some(5));
            engine.handle(1, Event::Applied { index: Index(5), outlook: Outlook::default() });
        },
        |engine, _| engine.handle(100, Event::Tick),
        |engine, id| {
            replies(engine, LEADER, id, Some(9));
            engine.handle(1_000, Event::Tick);
        },
    ];
    for (at, end) in ends.into_iter().enumerate() {
        (0..=bound).for_each(|ticket| read(&mut engine, ticket, 100 + 900 * (at as u64 / 3)));
        let (asked, answered) = finish(&mut engine);
        assert_eq!(answered, [(bound, overloaded.clone())], "so many fit, and no more: {at}");
        end(&mut engine, asked.expect("a question"));
        assert_eq!(finish(&mut engine).1.len() as u64, bound, "{at}");
    }
}

#[test]
fn a_question_that_was_lost_is_asked_again_and_so_is_one_that_was_not_taken() {
    let mut engine = connected();
    read(&mut engine, 1, 10_000);
    let lost = finish(&mut engine).0.expect("a question");
    engine.handle(config().read_retry_ms - 1, Event::Tick);
    assert_eq!(finish(&mut engine).0, None, "there is time");
    engine.handle(config().read_retry_ms, Event::Tick);
    let not_taken = finish(&mut engine).0.expect("another question");
    replies(&mut engine, LEADER, lost, Some(0));
    assert_eq!(finish(&mut engine), (None, vec![]), "that is not the question any more");
    replies(&mut engine, LEADER, not_taken, None);
    assert!(finish(&mut engine).0.is_some_and(|id| id != lost && id != not_taken));
    engine.handle(100, Event::Disconnected(LEADER));
    assert_eq!(finish(&mut engine), (None, vec![]));
    engine.handle(100, Event::Connected(LEADER));
    let body = Body::Heartbeat { commit: Index(0), context: 0 };
    let message = PeerMessage::Raft(Message { from: LEADER, to: ME, term: TERM, body });
    engine.handle(100, Event::Message { from: LEADER, message });
    let again = finish(&mut engine).0.expect("a question over the next connection");
    replies(&mut engine, LEADER, again, Some(0));
    assert_eq!(finish(&mut engine).1, [(1, Ok(()))]);
}

#[test]
fn a_leader_that_is_deposed_asks_the_next_one_and_says_so_to_who_asked_it() {
    let mut node = Node::leading(3);
    node.give(Event::Read { ticket: 1, deadline_ms: 10_000 });
    node.says(3, PeerMessage::ReadIndex { id: 77 });
    node.sent.clear();
    let next = node.engine.raft().term().next();
    node.hears_in(next, 2, Body::Heartbeat { commit: Index(1), context: 0 });
    node.give(Event::Tick);
    let to_other = PeerMessage::ReadIndexReply { id: 77, index: None };
    assert!(node.sent.contains(&(OTHER, to_other)), "{:?}", node.sent);
    let asks = |(to, message): &(NodeId, PeerMessage)| {
        *to == LEADER && matches!(message, PeerMessage::ReadIndex { .. })
    };
    assert!(node.sent.iter().any(asks), "{:?}", node.sent);
    // A node that does not lead says so at once.
    node.says(3, PeerMessage::ReadIndex { id: 78 });
    assert!(node.sent.contains(&(OTHER, PeerMessage::ReadIndexReply { id: 78, index: None })));
}

#[test]
fn a_snapshot_brings_what_a_read_waits_for_and_what_its_state_means() {
    let mut engine = connected();
    read(&mut engine, 1, 10_000);
    let id = finish(&mut engine).0.expect("a question");
    replies(&mut engine, LEADER, id, Some(9));
    assert_eq!(finish(&mut engine).1, []);
    let meta = SnapshotMeta { index: Index(9), term: TERM, membership: Arc::new(membership()) };
    let outlook = Outlook { feature_level: 2, due_ms: Some(7), wants_compaction: None };
    engine.handle(1, Event::SnapshotInstalled { meta, time_ms: 1, outlook });
    assert_eq!(finish(&mut engine).1, [(1, Ok(()))]);
    assert_eq!((engine.level(), engine.outlook().due_ms), (2, Some(7)));
}

/// What a quorum confirmed says how old the state is only where the store has got as far.
#[test]
fn a_leader_whose_store_lags_does_not_pass_for_fresh() {
    let mut node = Node::leading(3);
    // All but applying.
    let carry = |node: &mut Node, now_ms, event| {
        node.engine.handle(now_ms, event);
        let mut context = 0;
        loop {
            let effects = node.engine.finish();
            if effects.is_empty() {
                return context;
            }
            for effect in effects {
                match effect {
                    Effect::Log(LogJob::Persist { token, .. }) => {
                        node.engine.handle(now_ms, Event::Persisted(token));
                    }
                    Effect::Send { message: PeerMessage::Raft(message), .. } => {
                        if let Body::Heartbeat { context: asked, .. } = message.body {
                            context = context.max(asked);
                        }
                    }
                    _ => {}
                }
            }
        }
    };
    let says = |node: &Node, body| {
        let message = Message { from: LEADER, to: ME, term: node.engine.raft().term(), body };
        Event::Message { from: LEADER, message: PeerMessage::Raft(message) }
    };
    let command = Bytes::from_static(&[0; 9]);
    let write = Event::Write { ticket: 1, command, repeatable: false, deadline_ms: 10_000 };
    carry(&mut node, 1, write);
    let written = node.engine.raft().last_index();
    let accepted = says(&node, Body::AppendAccepted { match_index: written });
    carry(&mut node, 1, accepted);
    assert_eq!(node.engine.raft().commit_index(), written);
    let fresh_ms = node.engine.fresh_ms();
    let context = carry(&mut node, 50, Event::Tick);
    let confirmed = says(&node, Body::HeartbeatReply { context });
    carry(&mut node, 50, confirmed);
    assert_eq!(node.engine.fresh_ms(), fresh_ms, "what is committed is not applied");
    carry(&mut node, 51, Event::Applied { index: written, outlook: Outlook::default() });
    let context = carry(&mut node, 60, Event::Tick);
    let confirmed = says(&node, Body::HeartbeatReply { context });
    carry(&mut node, 60, confirmed);
    assert_eq!(node.engine.fresh_ms(), 60);
}

#[test]
fn who_leads_once_more_passes_for_fresh_once_more() {
    let mut node = Node::leading(3);
    node.give(Event::Tick); // it asks whether it leads still, and hears of the next leader
    let next = node.engine.raft().term().next();
    node.hears_in(next, 2, Body::Heartbeat { commit: Index(1), context: 0 });
    node.hears(2, Body::TimeoutNow { last_index: node.engine.raft().last_index() });
    node.hears(2, Body::VoteReply { granted: true });
    node.all_answer(&[2]);
    node.sent.clear();
    node.now_ms = 500;
    node.give(Event::Tick);
    let asked = node.sent.iter().filter_map(|(_, message)| match message {
        PeerMessage::Raft(Message { body: Body::Heartbeat { context, .. }, .. }) => Some(*context),
        _ => None,
    });
    let context = asked.max().expect("a question");
    node.hears(2, Body::HeartbeatReply { context });
    assert_eq!(node.engine.fresh_ms(), 500);
}
