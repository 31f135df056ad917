
/// Whether this bug of `tests/planted/` is to be there.
pub(crate) fn planted(bug: &str) -> bool {
    static BUG: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    BUG.get_or_init(|| std::env::var("PLANTED").unwrap_or_default()) == bug
}
