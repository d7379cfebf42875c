//! Answers in pages, which a continuation token ties together (service API §2.1).

use crate::answer::Answer;
use crate::http::Request;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// What is listed.
#[derive(Debug, Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) name: &'a str,
    /// The header `x-ms-item-type`; what it says at the service is UNCONFIRMED.
    pub(super) item_type: &'static str,
}

/// Which page a client asks for.
#[derive(Debug)]
pub(super) struct Page {
    size: usize,
    /// The key of the last record that it has seen.
    after: Option<String>,
}

impl Page {
    /// Reads the headers; a token of another list is refused.
    pub(super) fn asked(request: &Request, list: &List<'_>, largest: usize) -> Result<Self, String> {
        let size = match request.header("x-ms-max-item-count").map(str::parse) {
            None => largest,
            Some(Ok(size)) if size > 0 => largest.min(size),
            Some(_) => return Err("x-ms-max-item-count is no number above 0.".to_owned()),
        };
        let after = request.header("x-ms-continuation").filter(|token| !token.is_empty());
        let after = after.map(|token| key(token, list.name).ok_or("x-ms-continuation is not of this query.")).transpose()?;
        Ok(Self { size, after })
    }

    /// The page out of all records, whose keys come in order; `record` is asked for those that are shown.
    pub(super) fn answer(&self, list: &List<'_>, keys: Vec<String>, record: impl Fn(&str) -> Option<Value>) -> Answer {
        let unseen = |key: &String| self.after.as_ref().is_none_or(|after| key > after);
        let mut rest = keys.into_iter().filter(unseen);
        let page: Vec<String> = rest.by_ref().take(self.size).collect();
        let last = page.last().filter(|_| rest.next().is_some());
        let body: Vec<Value> = page.iter().filter_map(|key| record(key)).collect();
        let mut answer = Answer::json(200, &Value::Array(body));
        answer.headers.push(("x-ms-max-item-count", self.size.to_string()));
        answer.headers.push(("x-ms-item-type", list.item_type.to_owned()));
        let token = last.map(|key| URL_SAFE_NO_PAD.encode(format!("{}\n{key}", list.name)));
        answer.headers.extend(token.map(|token| ("x-ms-continuation", token)));
        answer
    }
}

fn key(token: &str, list: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    text.split_once('\n').filter(|(own, _)| *own == list).map(|(_, key)| key.to_owned())
}
