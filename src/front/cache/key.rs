//! What answers are found by.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, request};

/// The host and what is asked of it. Without a scheme, for clients see one service whatever they come by; without a
/// method, for only answers to GET are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(Arc<str>);

impl Key {
    /// `authority` in any case; `path_and_query` as it was sent.
    pub(super) fn new(authority: &str, path_and_query: &str) -> Self {
        let mut key = String::with_capacity(authority.len() + 1 + path_and_query.len());
        key.push_str(authority);
        key.make_ascii_lowercase();
        if !path_and_query.starts_with('/') {
            key.push('/');
        }
        key.push_str(path_and_query);
        Self(key.into())
    }

    /// Of this request to `authority`.
    pub(super) fn of(request: &request::Parts, authority: &str) -> Self {
        let path_and_query = request.uri.path_and_query().map_or("/", |path| path.as_str());
        Self::new(authority, path_and_query)
    }

    /// Its length, in bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The headers that `Vary` names, with what one request said in them, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Selecting(Box<[(HeaderName, Box<[HeaderValue]>)]>);

impl Selecting {
    /// What `request` says in the headers that `names` gives; copied, for else it would keep alive what the request
    /// was read into.
    pub(super) fn of(names: &[HeaderName], request: &HeaderMap) -> Self {
        let of_name = |name: &HeaderName| (name.clone(), request.get_all(name).iter().map(copy).collect());
        let mut selecting: Vec<_> = names.iter().map(of_name).collect();
        selecting.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        selecting.dedup_by(|(a, _), (b, _)| a == b);
        Self(selecting.into())
    }

    /// Whether `request` says the same.
    pub(super) fn fits(&self, request: &HeaderMap) -> bool {
        self.0.iter().all(|(name, values)| request.get_all(name).iter().eq(values.iter()))
    }

    /// A number that requests which say the same in these headers share. Others may share it too.
    pub(super) fn digest(&self, request: &HeaderMap) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, _) in &self.0 {
            name.hash(&mut hasher);
            request.get_all(name).iter().for_each(|value| value.hash(&mut hasher));
        }
        hasher.finish()
    }

    /// The lengths of its names and values together, in bytes, and their number.
    pub(super) fn size(&self) -> (usize, usize) {
        let of_name = |(name, values): &(HeaderName, Box<[HeaderValue]>)| {
            (name.as_str().len() + values.iter().map(HeaderValue::len).sum::<usize>(), 1 + values.len())
        };
        self.0.iter().map(of_name).fold((0, 0), |(bytes, number), (b, n)| (bytes + b, number + n))
    }
}

/// A value of its own memory. What was read from a socket is else a part of the buffer it was read into, and keeps
/// all of that alive, uncounted.
pub(super) fn copy(value: &HeaderValue) -> HeaderValue {
    let mut copied = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
    copied.set_sensitive(value.is_sensitive());
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_any_case_paths_not() {
        assert_eq!(Key::new("A.Example:80", "/x?Y"), Key::new("a.example:80", "/x?Y"));
        assert_ne!(Key::new("a", "/x"), Key::new("a", "/X"));
        assert_ne!(Key::new("a", "/x"), Key::new("b", "/x"));
        assert_ne!(Key::new("a", "/x?1"), Key::new("a", "/x?2"));
        assert_eq!(Key::new("a", ""), Key::new("a", "/"));
    }

    #[test]
    fn what_vary_names() {
        let names = [http::header::ACCEPT_LANGUAGE, http::header::ACCEPT];
        let headers = |language: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::ACCEPT_LANGUAGE, HeaderValue::from_static(language));
            headers
        };
        let german = Selecting::of(&names, &headers("de"));
        assert!(german.fits(&headers("de")));
        assert!(!german.fits(&headers("en")) && !german.fits(&HeaderMap::new()));
        assert_eq!(german.digest(&headers("en")), german.digest(&headers("en")));
        assert_ne!(german.digest(&headers("en")), german.digest(&headers("de")));
        let mut twice = headers("de");
        twice.append(http::header::ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        assert!(!german.fits(&twice));
    }
}
