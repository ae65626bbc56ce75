//! A plug-in made with the Rust PDK, for the side-by-side test: one export for each
//! part of the PDK. The step that needs it builds it (tests/fetch/rust-pdk.sh).

use extism_pdk::*;
use std::collections::BTreeMap;

#[host_fn]
extern "ExtismHost" {
    fn shout(text: String) -> String;
}

#[plugin_fn]
pub fn count_vowels(text: String) -> FnResult<String> {
    let count = text.chars().filter(|c| "aeiouAEIOU".contains(*c)).count();
    Ok(format!("{{\"count\":{count}}}"))
}

#[plugin_fn]
pub fn echo(bytes: Vec<u8>) -> FnResult<Vec<u8>> {
    Ok(bytes)
}

/// Counts its calls in a variable; the input `forget` removes it.
#[plugin_fn]
pub fn remember(input: String) -> FnResult<String> {
    if input == "forget" {
        var::remove("calls")?;
        return Ok("forgotten".into());
    }
    let calls: u32 = var::get::<u32>("calls")?.unwrap_or(0) + 1;
    var::set("calls", calls)?;
    Ok(calls.to_string())
}

#[plugin_fn]
pub fn configured(key: String) -> FnResult<String> {
    Ok(config::get(key)?.unwrap_or_else(|| "(none)".into()))
}

#[plugin_fn]
pub fn fail(text: String) -> FnResult<()> {
    Err(WithReturnCode::new(Error::msg(text), 7))
}

#[plugin_fn]
pub fn panic(text: String) -> FnResult<()> {
    panic!("{text}")
}

#[plugin_fn]
pub fn ask_host(text: String) -> FnResult<String> {
    Ok(unsafe { shout(text)? })
}

#[plugin_fn]
pub fn logs(text: String) -> FnResult<()> {
    trace!("{text} trace");
    debug!("{text} debug");
    info!("{text} info");
    warn!("{text} warn");
    error!("{text} error");
    Ok(())
}

/// Answers with status, body and the header `x-test`.
#[plugin_fn]
pub fn fetch(Json(request): Json<HttpRequest>) -> FnResult<String> {
    let answer = http::request::<Vec<u8>>(&request, None)?;
    let header = answer.headers().get("x-test").cloned().unwrap_or_default();
    let body = String::from_utf8_lossy(&answer.body()).into_owned();
    Ok(format!("{} {} {}", answer.status_code(), header, body))
}

/// Counts words and gives them back as JSON: serde in both directions.
#[plugin_fn]
pub fn words(text: String) -> FnResult<Json<BTreeMap<String, u32>>> {
    let mut words = BTreeMap::new();
    for word in text.split_whitespace() {
        *words.entry(word.to_string()).or_insert(0) += 1;
    }
    Ok(Json(words))
}

/// Many small blocks of Extism memory, alive together.
#[plugin_fn]
pub fn blocks(count: u32) -> FnResult<u64> {
    let blocks: Vec<Memory> = (0..count).map(|i| Memory::from_bytes(i.to_le_bytes())).collect::<Result<_, _>>()?;
    let mut sum = 0;
    for block in &blocks {
        let bytes = block.to_vec();
        sum += u64::from(bytes.iter().map(|b| u32::from(*b)).sum::<u32>());
    }
    Ok(sum)
}
