//! As much of HTTP/1.1 (RFC 9112) as a scraper needs: one GET or HEAD a connection.
//!
//! No request changes anything and there are no cookies, so `Host` and `Origin` are not looked at.

/// A request of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// What it asks for.
    pub(super) wanted: Wanted,
    /// Only the head of the answer is wanted.
    pub(super) is_head: bool,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The metrics, in the format that the client prefers.
    Metrics(Format),
    /// The page that says where the metrics are.
    Index,
    /// Something that is answered with an error.
    Refusal(Refusal),
}

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus text 0.0.4, to which what OpenMetrics adds is comments.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// Why a client does not get what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP.
    BadRequest,
    /// No such page.
    NotFound,
    /// Neither GET nor HEAD.
    MethodNotAllowed,
    /// The request did not come in time.
    Timeout,
    /// The request does not end.
    TooLarge,
    /// The daemon does not come to it.
    Busy,
}

/// Reads a request; `None` while it is incomplete.
pub(super) fn parse(head: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < HEAD_LEN => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(Request::refused(Refusal::TooLarge));
        }
        Err(_) => return Some(Request::refused(Refusal::BadRequest)),
    }
    let is_head = request.method == Some("HEAD");
    let wanted = match path(request.path.unwrap_or_default()) {
        "/" | "/metrics" if !is_head && request.method != Some("GET") => {
            Wanted::Refusal(Refusal::MethodNotAllowed)
        }
        "/metrics" => Wanted::Metrics(preferred(request.headers)),
        "/" => Wanted::Index,
        _ => Wanted::Refusal(Refusal::NotFound),
    };
    Some(Request { wanted, is_head })
}

impl Request {
    fn refused(refusal: Refusal) -> Self {
        Self {
            wanted: Wanted::Refusal(refusal),
            is_head: false,
        }
    }
}

/// The path of a target in origin form or in absolute form (RFC 9112 §3.2).
fn path(target: &str) -> &str {
    let target = target.split_once('?').map_or(target, |(path, _)| path);
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            let path = rest.find('/').and_then(|start| rest.get(start..));
            path.unwrap_or("/")
        }
        _ => target,
    }
}

/// OpenMetrics for who names it, as every Prometheus since 2.5 does.
fn preferred(headers: &[httparse::Header<'_>]) -> Format {
    let accept = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("accept"));
    let named = |header: &httparse::Header<'_>| {
        str::from_utf8(header.value).is_ok_and(|value| value.contains(OPEN_METRICS))
    };
    if accept.into_iter().any(named) {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

impl Format {
    fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Refusal {
    fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Busy => "503 Service Unavailable",
        }
    }
}

/// The head of an answer with metrics of `length` bytes.
pub(super) fn metrics_head(format: Format, length: usize) -> String {
    head("200 OK", format.content_type(), length)
}

/// The index page, head and body.
pub(super) fn index() -> String {
    let head = head("200 OK", "text/html; charset=utf-8", INDEX.len());
    format!("{head}{INDEX}")
}

/// Takes the body off an answer.
pub(super) fn keep_head(answer: &mut String) {
    if let Some(end) = answer.find(HEAD_END) {
        answer.truncate(end + HEAD_END.len());
    }
}

/// An error, head and body.
pub(super) fn refusal(refusal: Refusal) -> String {
    let status = refusal.status();
    let head = head(status, "text/plain; charset=utf-8", status.len() + 1);
    format!("{head}{status}\n")
}

fn head(status: &str, content_type: &str, length: usize) -> String {
    // RFC 9110 §15.5.6 wants to know what is allowed instead.
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{allow}\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
}

const OPEN_METRICS: &str = "application/openmetrics-text";
const INDEX: &str = "<!doctype html><title>lockgate</title><h1>lockgate</h1><p><a href=\"/metrics\">metrics</a></p>\n";
const HEAD_END: &str = "\r\n\r\n";
/// Bytes that a request may have before it is refused.
pub(super) const HEAD_LEN: usize = 8 << 10;
const HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(head: &[u8]) -> Option<Wanted> {
        parse(head).map(|request| request.wanted)
    }

    #[test]
    fn a_target_may_name_the_host_as_if_it_were_that_of_a_proxy() {
        for (target, expected) in [
            (
                "http://gw:9750/metrics",
                Wanted::Metrics(Format::Prometheus),
            ),
            (
                "HTTP://[::1]/metrics?a=/b",
                Wanted::Metrics(Format::Prometheus),
            ),
            (
                "/metrics?from=http://gw/",
                Wanted::Metrics(Format::Prometheus),
            ),
            ("http://gw", Wanted::Index),
            ("http://gw?x=/metrics", Wanted::Index),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(wanted(head.as_bytes()), Some(expected), "{target}");
        }
    }

    #[test]
    fn head_is_answered_like_get_without_the_body() {
        for page in ["/metrics", "/", "/none"] {
            let [get, head] = ["GET", "HEAD"].map(|method| {
                let head = format!("{method} {page} HTTP/1.1\r\n\r\n");
                parse(head.as_bytes()).unwrap()
            });
            assert_eq!(get.wanted, head.wanted, "{page}");
            assert!(head.is_head && !get.is_head);
        }
        let mut answer = refusal(Refusal::NotFound);
        keep_head(&mut answer);
        assert!(answer.contains("Content-Length: 14\r\n") && answer.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_request_is_read_once_it_is_complete_and_not_before() {
        let whole = b"GET /metrics?x=1 HTTP/1.1\r\nHost: gw\r\naccept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(wanted(whole), Some(Wanted::Metrics(Format::OpenMetrics)));
    }

    #[test]
    fn what_is_no_request_for_one_of_the_two_pages_is_refused() {
        for (head, refusal) in [
            ("GET /etc/passwd HTTP/1.1\r\n\r\n", Refusal::NotFound),
            ("GET http://gw/etc HTTP/1.1\r\n\r\n", Refusal::NotFound),
            ("GET ftp://gw/metrics HTTP/1.1\r\n\r\n", Refusal::NotFound),
            ("POST /metrics HTTP/1.1\r\n\r\n", Refusal::MethodNotAllowed),
            ("head / HTTP/1.0\r\n\r\n", Refusal::MethodNotAllowed),
            ("\x16\x03\x01\x02\x00\x01\x00", Refusal::BadRequest),
            ("GET /metrics\r\n\r\n", Refusal::BadRequest),
        ] {
            let wanted = wanted(head.as_bytes());
            assert_eq!(wanted, Some(Wanted::Refusal(refusal)), "{head:?}");
        }
    }

    #[test]
    fn a_request_without_end_is_refused_at_its_limit() {
        let mut head = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
        head.resize(HEAD_LEN - 1, b'x');
        assert_eq!(parse(&head), None);
        head.push(b'x');
        assert_eq!(wanted(&head), Some(Wanted::Refusal(Refusal::TooLarge)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(65));
        assert_eq!(
            wanted(many.as_bytes()),
            Some(Wanted::Refusal(Refusal::TooLarge))
        );
    }
}
