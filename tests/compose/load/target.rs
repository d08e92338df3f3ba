//! One URL to ask, and its request.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;

/// Stands for a number.
const NUMBER: &str = "{n}";

#[derive(Clone)]
pub(crate) struct Target {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    host_header: HeaderValue,
    path: String,
    body: Option<String>,
}

impl Target {
    pub(crate) fn get(url: &str) -> Result<Self, String> {
        if url.starts_with("https:") {
            return Err("this program speaks no TLS; write http://HOST:PORT/PATH".to_owned());
        }
        let Some(place) = url.strip_prefix("http://") else {
            return Err(format!("{url:?} is no URL; write http://HOST:PORT/PATH"));
        };
        let uri: Uri = with_number(url, 1).parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if authority.contains('@') {
            return Err("no user or password can be given in this URL".to_owned());
        }
        // With a number in the host this would be another connection each time.
        if !place.starts_with(authority) {
            return Err(format!("{NUMBER} can stand in the path only"));
        }
        let path = place.get(authority.len()..).unwrap_or_default();
        let path = path.split('#').next().unwrap_or_default();
        Ok(Self {
            host: uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            host_header: HeaderValue::from_str(authority).map_err(|error| error.to_string())?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            body: None,
        })
    }

    pub(crate) fn post(url: &str, body: &str) -> Result<Self, String> {
        let target = Self::get(url)?;
        serde_json::from_str::<serde_json::Value>(&with_number(body, 1))
            .map_err(|error| format!("--body is not JSON: {error}"))?;
        Ok(Self { body: Some(body.to_owned()), ..target })
    }

    pub(crate) fn is_post(&self) -> bool {
        self.body.is_some()
    }

    /// Whether each number asks for something else.
    pub(crate) fn is_numbered(&self) -> bool {
        self.path.contains(NUMBER)
    }

    pub(crate) fn request(&self, number: u64) -> Result<Request<Full<Bytes>>, String> {
        let request = Request::builder()
            .method(if self.is_post() { Method::POST } else { Method::GET })
            .uri(with_number(&self.path, number))
            .header(HOST, &self.host_header)
            .header(ACCEPT, "application/json");
        let request = match &self.body {
            None => request.body(Full::default()),
            Some(body) => {
                request.header(CONTENT_TYPE, "application/json").body(Full::from(with_number(body, number)))
            }
        };
        request.map_err(|error| format!("this request cannot be written: {error}"))
    }
}

fn with_number(text: &str, number: u64) -> String {
    text.replace(NUMBER, &number.to_string())
}

#[cfg(test)]
mod tests {
    use super::Target;

    fn fault(url: &str) -> String {
        Target::get(url).err().expect("a fault")
    }

    #[test]
    fn number_goes_into_path_and_body() {
        let target = Target::post("http://h:81/users/{n}?a={n}", r#"{"id":{n}}"#).expect("a target");
        let request = target.request(7).expect("a request");
        assert_eq!(request.uri(), "/users/7?a=7");
        assert_eq!(request.headers()["host"], "h:81");
        assert_eq!((target.host.as_str(), target.port), ("h", 81));
        assert!(target.is_numbered() && !Target::get("http://h/users").expect("a target").is_numbered());
    }

    #[test]
    fn path_may_be_missing() {
        let target = Target::get("http://[::1]?a=1").expect("a target");
        assert_eq!(target.request(1).expect("a request").uri(), "/?a=1");
        assert_eq!((target.host.as_str(), target.port), ("::1", 80));
    }

    #[test]
    fn faults_are_told() {
        assert!(fault("https://h/").contains("TLS"));
        assert!(fault("h/users").contains("http://"));
        assert!(fault("http://h{n}/").contains("path only"));
        assert!(fault("http://a:b@h/").contains("password"));
        assert!(Target::post("http://h/", "{").is_err());
    }
}
