//! Settings, all in the environment, where `make` puts what stands on its command line.

/// What a variable is set to; an empty one counts as not set.
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.trim().is_empty())
}

/// A number that is no less than `least`.
pub(crate) fn number(name: &str, least: u32, default: u32) -> Result<u32, String> {
    let Some(text) = setting(name) else { return Ok(default) };
    let number = text.parse().ok().filter(|&number| number >= least);
    number.ok_or_else(|| format!("{name}={text} is not a number from {least} on"))
}

/// Those of `all` that a variable names, in the order of `all`; all of them when it is not set. A word may name several.
pub(crate) fn chosen<T: Copy>(
    name: &str,
    all: &[T],
    names: impl Fn(T) -> Vec<&'static str>,
) -> Result<Vec<T>, String> {
    let Some(text) = setting(name) else { return Ok(all.to_vec()) };
    let words: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let fits = |one: T, word: &str| names(one).contains(&word);
    if let Some(unknown) = words.iter().find(|word| !all.iter().any(|&one| fits(one, word))) {
        let known: Vec<&str> = all.iter().filter_map(|&one| names(one).first().copied()).collect();
        return Err(format!("{name}: there is no {unknown:?}, only {}", known.join(", ")));
    }
    Ok(all.iter().copied().filter(|&one| words.iter().any(|word| fits(one, word))).collect())
}
