//! The smallest task: greets, with the word in its config's `greeting` if there is one.

use innkeeper::Failure;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Input {
    name: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Output {
    greeting: String,
}

#[innkeeper::task]
fn hello(input: Input) -> Result<Output, Failure> {
    if input.name.is_empty() {
        return Err(Failure::permanent("nobody", "the name is empty"));
    }
    innkeeper::info!("greeting {}", input.name);
    let word = match innkeeper::config("greeting") {
        Some(word) => {
            innkeeper::info!("with {word}");
            word
        }
        None => "Hello".into(),
    };
    Ok(Output { greeting: format!("{word}, {}!", input.name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greets() {
        let greeting = "Hello, you!".to_string();
        assert_eq!(hello(Input { name: "you".into() }), Ok(Output { greeting }));
        assert_eq!(hello(Input { name: String::new() }).unwrap_err().code, "nobody");
    }
}
