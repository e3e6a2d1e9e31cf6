//! Server-sent events as they come, from bytes cut anywhere (the WHATWG's HTML standard, section 9.2). Pure.

/// An event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// The last `id:` of it.
    pub id: Option<String>,
    /// Its kind.
    pub kind: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
}

/// Reads events out of pieces.
#[derive(Debug, Default)]
pub struct Parser {
    /// What is no whole line yet.
    rest: Vec<u8>,
    event: Event,
    has_data: bool,
}

impl Parser {
    /// Takes a piece; gives the events that it ends.
    pub fn take(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut piece = piece;
        while let Some(at) = piece.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(&piece[..at]);
            piece = &piece[at + 1..];
            events.extend(self.line(&String::from_utf8_lossy(&line)));
        }
        self.rest.extend_from_slice(piece);
        events
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.kind = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            _ => {} // a comment, or a field of another time
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_however_they_are_cut() {
        let text = ": hello\n\nid: 7\nevent: put\ndata: [1,\ndata:2]\n\nevent: delete\r\ndata: {}\r\n\r\nid: 9\n\ndata\n\n: end";
        let event = |id: Option<&str>, kind: &str, data: &str| Event {
            id: id.map(str::to_owned),
            kind: kind.to_owned(),
            data: data.to_owned(),
        };
        let expected = [event(Some("7"), "put", "[1,\n2]"), event(None, "delete", "{}"), event(None, "", "")];
        for piece in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> =
                text.as_bytes().chunks(piece).flat_map(|piece| parser.take(piece)).collect();
            assert_eq!(events, expected, "in pieces of {piece}");
        }
    }
}
