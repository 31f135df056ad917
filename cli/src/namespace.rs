//! `rimstone namespace`.

use rimstone_server::limits::TITLE_CHARS_MAX;
use serde_json::json;

use crate::Outcome;
use crate::local::{Data, Which, print};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Create a namespace, and the store if it is missing; prints its id and title.
    Create {
        /// The new namespace's title.
        title: String,
        #[command(flatten)]
        data: Data,
    },
    /// Print all namespaces as a JSON array.
    List {
        #[command(flatten)]
        data: Data,
    },
    /// Give a namespace another title.
    Rename {
        /// The new title.
        #[arg(long, value_name = "TITLE")]
        new_name: String,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        data: Data,
    },
    /// Delete a namespace with all its keys.
    Delete {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        data: Data,
    },
}

pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Create { title, data } => {
            check_title(&title)?;
            let store = data.open_or_create()?;
            let created = store.create_namespace(&title)?;
            print(json!({"id": created.id().to_string(), "title": title}))?;
            Ok(store.close()?)
        }
        Command::List { data } => {
            let all = data.open()?.namespaces();
            let shown =
                |ns: &rimstone::Namespace| json!({"id": ns.id().to_string(), "title": ns.name()});
            let all: Vec<_> = all.iter().map(shown).collect();
            print(serde_json::to_string_pretty(&all)?)
        }
        Command::Rename {
            new_name,
            which,
            data,
        } => {
            check_title(&new_name)?;
            let store = data.open()?;
            store.rename_namespace(which.find(&store)?.id(), &new_name)?;
            Ok(store.close()?)
        }
        Command::Delete { which, data } => {
            let store = data.open()?;
            store.drop_namespace(which.find(&store)?.id())?;
            Ok(store.close()?)
        }
    }
}

fn check_title(title: &str) -> Outcome {
    match title.chars().count() {
        1..=TITLE_CHARS_MAX => Ok(()),
        count => Err(format!(
            "a title has 1 to {TITLE_CHARS_MAX} characters, this one has {count}"
        )
        .into()),
    }
}
