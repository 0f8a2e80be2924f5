"""The table of stored responses."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="StoredResponse",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("owner", models.CharField(max_length=200)),
                ("previous", models.CharField(max_length=64, null=True)),
                ("status", models.CharField(max_length=16)),
                ("created", models.FloatField()),
                ("used", models.FloatField()),
                ("size", models.PositiveBigIntegerField()),
                ("response", models.BinaryField()),
                ("inputs", models.BinaryField()),
                ("output", models.BinaryField()),
                ("events", models.BinaryField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["used"], name="response_used"),
                    models.Index(fields=["status"], name="response_status"),
                ],
            },
        ),
    ]
