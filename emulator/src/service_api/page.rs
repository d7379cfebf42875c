//! Answers in pages, which a continuation token ties together (service API §2.1).

use crate::answer::Answer;
use crate::http::Request;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// Which page a client asks for.
#[derive(Debug)]
pub(super) struct Page {
    size: usize,
    /// The key of the last record that it has seen; with what is listed before it.
    after: Option<String>,
}

impl Page {
    /// Reads the headers. `list` names what is listed: a token of another list is refused.
    pub(super) fn asked(request: &Request, list: &str, largest: usize) -> Result<Self, String> {
        let size = match request.header("x-ms-max-item-count").map(str::parse) {
            None => largest,
            Some(Ok(size)) if size > 0 => largest.min(size),
            Some(_) => return Err("x-ms-max-item-count is no number above 0.".to_owned()),
        };
        let after = request.header("x-ms-continuation").filter(|token| !token.is_empty());
        let after = after.map(|token| key(token, list).ok_or("x-ms-continuation is not of this query.")).transpose()?;
        Ok(Self { size, after })
    }

    /// The page out of all records, which come in the order of their keys.
    pub(super) fn answer(&self, list: &str, item_type: &str, records: Vec<(String, Value)>) -> Answer {
        let unseen = |key: &String| self.after.as_ref().is_none_or(|after| key > after);
        let mut rest = records.into_iter().filter(|(key, _)| unseen(key)).peekable();
        let page: Vec<(String, Value)> = rest.by_ref().take(self.size).collect();
        let last = page.last().map(|(key, _)| key.clone()).filter(|_| rest.peek().is_some());
        let body: Vec<Value> = page.into_iter().map(|(_, record)| record).collect();
        let mut answer = Answer::json(200, &Value::Array(body));
        answer.headers.push(("x-ms-max-item-count", self.size.to_string()));
        answer.headers.push(("x-ms-item-type", item_type.to_owned()));
        answer.headers.extend(last.map(|key| ("x-ms-continuation", URL_SAFE_NO_PAD.encode(format!("{list}\n{key}")))));
        answer
    }
}

fn key(token: &str, list: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.split_once('\n').filter(|(own, _)| *own == list).map(|(_, key)| key.to_owned())
}
