//! `rask submit` and `rask fetch`: compute a graph file on a running cluster, at once or in two steps.

use crate::arguments::{FetchArguments, SubmitArguments};
use crate::attach::attach;
use crate::blocking::block_on;
use crate::compute::{self, Request};
use crate::connect::connect;
use crate::exit::Exit;
use crate::files::{Loaded, display_name, load_plan};
use crate::settings::Settings;

/// Run the command.
pub(crate) fn run(arguments: &SubmitArguments, settings: &Settings) -> anyhow::Result<Exit> {
    let plan = match load_plan(&arguments.file, &rask::registry())? {
        Loaded::Good(plan) => plan,
        Loaded::Bad(exit) => return Ok(exit),
    };
    let name = display_name(&arguments.file.file);
    let request = Request {
        plan: &plan,
        name: &name,
        priority: arguments.priority,
        is_json: arguments.json,
        is_detached: arguments.detach,
    };
    block_on(async {
        let client = connect(&arguments.connect, settings).await?;
        compute::compute(&client, &request).await
    })
}

/// `rask fetch`
pub(crate) fn fetch(arguments: &FetchArguments, settings: &Settings) -> anyhow::Result<Exit> {
    let plan = match load_plan(&arguments.file, &rask::registry())? {
        Loaded::Good(plan) => plan,
        Loaded::Bad(exit) => return Ok(exit),
    };
    let name = display_name(&arguments.file.file);
    let request = Request { plan: &plan, name: &name, priority: 0, is_json: arguments.json, is_detached: true };
    block_on(async {
        let client = connect(&arguments.connect, settings).await?;
        let job = attach(&client, arguments.graph).await?;
        compute::fetch(&job, &request).await
    })
}
