//! The closed label sets of the HTTP fronts.

/// Why a request, or a connection, was refused by pgsplit itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRejection {
    /// As many clients were connected as may be, or no descriptor was left.
    Connections,
    /// It was not HTTP, or could be read in more than one way.
    BadRequest,
    /// The head was larger than allowed.
    Header,
    /// The body was larger than allowed.
    Body,
    /// The client did not send the rest of a head or body in time, or did not read.
    Slow,
    /// It broke off most of its requests on a connection: an attack ("rapid reset"), or a very broken client.
    Resets,
    /// The method is not passed on.
    Method,
    /// No route fits.
    NoRoute,
    /// As many requests waited as may wait.
    QueueFull,
    /// It waited for its turn for as long as it may.
    QueueTimeout,
    /// No upstream fitted for as long as it may wait.
    NoUpstream,
    /// The database its services depend on was gone for as long as it may wait.
    Database,
    /// No upstream could be connected to.
    Connect,
    /// An upstream broke off, or answered something that is not HTTP.
    Reset,
    /// An upstream did not answer in time.
    Timeout,
    /// Only a stored answer was asked for, and there is none.
    NotCached,
}

impl HttpRejection {
    /// Every reason, in the order of [`HttpRejection::index`].
    pub const ALL: [Self; 16] = [
        Self::Connections,
        Self::BadRequest,
        Self::Header,
        Self::Body,
        Self::Slow,
        Self::Resets,
        Self::Method,
        Self::NoRoute,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::NoUpstream,
        Self::Database,
        Self::Connect,
        Self::Reset,
        Self::Timeout,
        Self::NotCached,
    ];

    /// The label value, and what `X-Pgsplit-Reason` says.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::BadRequest => "bad_request",
            Self::Header => "header",
            Self::Body => "body",
            Self::Slow => "slow",
            Self::Resets => "resets",
            Self::Method => "method",
            Self::NoRoute => "no_route",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::NoUpstream => "no_upstream",
            Self::Database => "database",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::NotCached => "not_cached",
        }
    }

    /// Place in [`HttpRejection::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a request was given to another upstream before its client could notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpRetry {
    /// The upstream could not be connected to.
    Connect,
    /// It broke off before its answer.
    Reset,
    /// It did not answer in time.
    Timeout,
    /// It was found down while its answer was awaited.
    Down,
    /// It answered with a status that is as good as none.
    Status,
}

impl HttpRetry {
    /// Every reason, in the order of [`HttpRetry::index`].
    pub const ALL: [Self; 5] = [Self::Connect, Self::Reset, Self::Timeout, Self::Down, Self::Status];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Down => "down",
            Self::Status => "status",
        }
    }

    /// Place in [`HttpRetry::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What the cache had for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cached {
    /// A fresh answer.
    Hit,
    /// Nothing.
    Miss,
    /// An answer that its upstream has confirmed.
    Revalidated,
    /// An answer past its time, given all the same.
    Stale,
    /// The request is none for a cache.
    Bypass,
}

impl Cached {
    /// Every result, in the order of [`Cached::index`].
    pub const ALL: [Self; 5] = [Self::Hit, Self::Miss, Self::Revalidated, Self::Stale, Self::Bypass];

    /// The label value, and what `X-Cache` says.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Revalidated => "revalidated",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }

    /// Place in [`Cached::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// OPTIONS.
    Options,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// Any other.
    Other,
}

impl HttpMethod {
    /// Every method, in the order of [`HttpMethod::index`].
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Options, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Other];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "other",
        }
    }

    /// Place in [`HttpMethod::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label of a method.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|method| method.as_str() == name).unwrap_or(Self::Other)
    }
}

/// The class of an answer's status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CodeClass {
    /// 100 to 199: the connection went on as something else, such as a WebSocket.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 to 599.
    ServerError,
    /// None: the client left before the answer.
    None,
}

impl CodeClass {
    /// Every class, in the order of [`CodeClass::index`].
    pub const ALL: [Self; 6] = [
        Self::Informational,
        Self::Success,
        Self::Redirection,
        Self::ClientError,
        Self::ServerError,
        Self::None,
    ];

    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::None => "none",
        }
    }

    /// Place in [`CodeClass::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The class of a status code.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}
