//! `clsgen man`: one page with every command's options.

use clap::Command;
use clap_mangen::Man;

use super::output;
use crate::error::{Error, Result};

/// Prints the manual page (roff) to stdout.
pub fn print(mut command: Command) -> Result<()> {
    command.build();
    output::write(&page(&command).map_err(|e| Error::run(format!("cannot make the manual page: {e}")))?)
}

/// The main page, then a section for each command.
fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let main = Man::new(command.clone());
    main.render_title(&mut page)?;
    main.render_name_section(&mut page)?;
    main.render_synopsis_section(&mut page)?;
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let mut below = sub.get_subcommands().filter(|sub| sub.get_name() != "help").peekable();
        if below.peek().is_none() {
            section(&mut page, sub.get_name(), sub)?;
        }
        below.try_for_each(|inner| section(&mut page, &format!("{} {}", sub.get_name(), inner.get_name()), inner))?;
    }
    main.render_extra_section(&mut page)?;
    main.render_version_section(&mut page)?;
    Ok(page)
}

/// What a command does, and its own options.
fn section(page: &mut Vec<u8>, name: &str, command: &Command) -> std::io::Result<()> {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.extend(format!(".SH \"CLSGEN {}\"\n{about}.\n", name.to_uppercase()).into_bytes());
    let own = command.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    let mut options = Vec::new();
    Man::new(own).render_options_section(&mut options)?;
    page.extend(String::from_utf8_lossy(&options).replacen(".SH OPTIONS", ".PP", 1).into_bytes());
    Ok(())
}
