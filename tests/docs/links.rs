//! Links lead to something that is there, and to every page leads one.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use super::page::{Link, Page};
use super::{files, read, root};

/// Pages whose links are looked at.
fn pages() -> Vec<PathBuf> {
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "compose/README.md"].map(PathBuf::from);
    others.into_iter().chain(files("docs", ".md")).collect()
}

#[test]
fn every_link_and_every_anchor_leads_to_something_that_is_there() {
    let pages: HashMap<PathBuf, Page> =
        pages().into_iter().map(|path| (path.clone(), Page::new(&read(&path)))).collect();
    let anchors: HashMap<&Path, HashSet<String>> =
        pages.iter().map(|(path, page)| (path.as_path(), page.anchors())).collect();
    let mut broken = Vec::new();
    let mut followed = 0;
    for (from, page) in &pages {
        for Link { line, target } in page.links() {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            if let Err(why) = follow(from, &target, &anchors) {
                broken.push(format!("{}:{line}: {target}: {why}", from.display()));
            }
        }
    }
    broken.sort();
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    assert!(100 < followed, "only {followed} links were found");
}

#[test]
fn the_readme_leads_to_every_page() {
    let page = Page::new(&read("README.md"));
    let linked: HashSet<_> = page.links().into_iter().map(|link| PathBuf::from(link.target)).collect();
    for path in files("docs", ".md") {
        assert!(linked.contains(&path), "README.md has no link to {}", path.display());
    }
}

/// Whether a link of a page leads to something that is there.
fn follow(from: &Path, target: &str, anchors: &HashMap<&Path, HashSet<String>>) -> Result<(), &'static str> {
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let to = if path.is_empty() {
        from.to_owned()
    } else {
        beside(from, path).ok_or("leads out of the project")?
    };
    if !root().join(&to).exists() {
        return Err("there is no such file");
    }
    match (anchor, anchors.get(to.as_path())) {
        (None, _) => Ok(()),
        (Some(anchor), Some(known)) if known.contains(anchor) => Ok(()),
        (Some(_), Some(_)) => Err("that page has no such heading"),
        (Some(_), None) => Err("an anchor in what is no page"),
    }
}

/// The path that a page means by a relative one, from the project's directory; `None`: it leads out of that.
fn beside(page: &Path, path: &str) -> Option<PathBuf> {
    let mut to = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => to.push(name),
            Component::ParentDir => to.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(to)
}

#[test]
fn a_link_is_followed_from_where_it_stands() {
    let known = HashMap::from([(Path::new("README.md"), HashSet::from(["use-it".to_owned()]))]);
    let follow = |from: &str, target: &str| follow(Path::new(from), target, &known);
    assert_eq!(follow("docs/a.md", "../README.md#use-it"), Ok(()));
    assert_eq!(follow("README.md", "#use-it"), Ok(()));
    assert_eq!(follow("README.md", "src/"), Ok(()));
    assert!(follow("README.md", "#abuse-it").is_err());
    assert!(follow("docs/a.md", "README.md").is_err());
    assert!(follow("README.md", "../x").is_err());
    assert!(follow("README.md", "Cargo.toml#use-it").is_err());
}
