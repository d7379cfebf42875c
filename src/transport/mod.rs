//! One question, one answer: turns a request into bytes on a connection and what comes back into an answer.
