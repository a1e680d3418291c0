//! Two minutes of what `make soak` does for an hour.

use std::time::Duration;

use e2e::soak::{soak, table};
use e2e::{Result, haproxy, in_lab};

#[test]
fn under_load_with_life_and_faults_nothing_grows() -> Result<()> {
    in_lab(async |lab| {
        let soaked = soak(lab, &haproxy::newest()?, Duration::from_mins(2), 7).await?;
        println!("{}{:?} events, {}", table(&soaked.holdings), soaked.events, soaked.load.summary());
        soaked.holdings.must_not_grow()?;
        assert_eq!(soaked.accounts.without_cause(), 0, "{}", soaked.accounts);
        assert!(soaked.load.requests > 0 && soaked.load.failed() * 1000 <= soaked.load.requests, "{}", soaked.load);
        Ok(())
    })
}
