//! The page's own files. They are named with their content's hash, so a browser keeps them for good and never has old ones.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};

use crate::admin::reply::{Answer, typed};

/// One file.
#[derive(Debug)]
pub(in crate::admin) struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
    hash: String,
}

/// What the page does.
pub(in crate::admin) static SCRIPT: LazyLock<File> = LazyLock::new(|| {
    File::new("/dashboard/app.js", "text/javascript; charset=utf-8", include_str!("app.js"))
});
/// How it looks.
pub(in crate::admin) static STYLE: LazyLock<File> =
    LazyLock::new(|| File::new("/dashboard/style.css", "text/css; charset=utf-8", include_str!("style.css")));

impl File {
    fn new(path: &'static str, kind: &'static str, content: &'static str) -> Self {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        Self { path, kind, content, hash: format!("{:016x}", hasher.finish()) }
    }

    /// Where the page finds it.
    pub(super) fn link(&self) -> String {
        format!("{}?{}", self.path, self.hash)
    }

    /// The file, to who asked with this behind the `?` and these headers.
    pub(in crate::admin) fn answer(&self, query: Option<&str>, headers: &HeaderMap) -> Answer {
        let tag = format!("\"{}\"", self.hash);
        let has = |known: &HeaderValue| known.to_str().is_ok_and(|known| known.contains(&tag));
        let mut answer = if headers.get_all(IF_NONE_MATCH).iter().any(has) {
            typed(StatusCode::NOT_MODIFIED, self.kind, String::new())
        } else {
            typed(StatusCode::OK, self.kind, self.content.to_owned())
        };
        // Asked for by another hash, it comes from another version: then the browser is to ask again.
        let keep = if query == Some(&self.hash) { "public, max-age=31536000, immutable" } else { "no-cache" };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(keep));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            answer.headers_mut().insert(ETAG, tag);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_file_is_not_sent_it_again() {
        let none = HeaderMap::new();
        let file = &*SCRIPT;
        let (_, hash) = file.link().split_once('?').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let fresh = file.answer(Some(&hash), &none);
        assert_eq!(fresh.status(), StatusCode::OK);
        assert!(fresh.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
        let stale = file.answer(Some("0123"), &none);
        assert_eq!(
            (stale.status(), &stale.headers()[CACHE_CONTROL]),
            (StatusCode::OK, &HeaderValue::from_static("no-cache"))
        );
        let mut known = HeaderMap::new();
        known.insert(IF_NONE_MATCH, fresh.headers()[ETAG].clone());
        assert_eq!(file.answer(None, &known).status(), StatusCode::NOT_MODIFIED);
        assert_ne!(SCRIPT.hash, STYLE.hash);
    }
}
