from __future__ import annotations

import pytest

pytestmark = pytest.mark.postgres


def test_each_test_has_an_empty_database_of_its_own(postgres_url, postgres_server):
    import sqlalchemy

    first, second = sqlalchemy.create_engine(postgres_url), None
    name = postgres_server.create_database()
    try:
        second = sqlalchemy.create_engine(postgres_server.url(name))
        with first.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE TABLE only_here (a int)"))
        assert sqlalchemy.inspect(first).get_table_names() == ["only_here"]
        assert sqlalchemy.inspect(second).get_table_names() == []
    finally:
        first.dispose()
        second.dispose()
        postgres_server.drop_database(name)
