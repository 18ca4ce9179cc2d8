impl larder::ClearPrefix for Sqlite {
    async fn clear_prefix(&self, prefix: &str) -> Result<()> {
        // No text holds the byte 0xFF, so every key that begins with the prefix comes before this one.
        let end = [prefix.as_bytes(), &[0xFF]].concat();
        self.connection()
            .execute("DELETE FROM entries WHERE key >= ?1 AND key < ?2", params![prefix.as_bytes(), end])
            .map_err(failed(Operation::Clear))?;
        Ok(())
    }
}
